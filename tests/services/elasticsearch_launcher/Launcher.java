import java.lang.reflect.Method;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginBundle;
import org.elasticsearch.plugins.PluginsLoader;

/**
 * Starts one Elasticsearch node from Maven Central's jars, for tests.
 *
 * Usage: Launcher CONFIG_FOLDER, with the system property es.path.home set. Elasticsearch's own
 * start-up code needs its distribution's layout and command line tools; this is the part of it that
 * a node needs. The order matters: logging first, then the settings, then the plugin loader.
 */
public final class Launcher {
    private Launcher() {}

    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(System.getProperty("es.path.home"));
        String name = "tests";
        LogConfigurator.configureESLogging();
        LogConfigurator.setNodeName(name);
        Settings settings = Settings.builder().put("path.home", home.toString()).build();
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), Path.of(arguments[0]), () -> name);
        LogConfigurator.configure(environment, true);
        PluginsLoader loader = PluginsLoader.createPluginsLoader(
            bundles("loadModulesBundles", home.resolve("modules")),
            bundles("loadPluginsBundles", home.resolve("plugins")),
            Map.of());
        Node node = new Node(environment, loader);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (java.io.IOException error) {
                System.err.println("The node did not close: " + error);
            }
        }));
        node.start();
        // The node's threads are daemons. Standard input ends when the tests do, however they end.
        while (System.in.read() != -1) {}
        System.exit(0);
    }

    /** Version 8 takes the folder alone, version 9 a flag beside it. */
    @SuppressWarnings("unchecked")
    private static Set<PluginBundle> bundles(String method, Path folder) throws Exception {
        for (Method candidate : PluginsLoader.class.getMethods()) {
            if (candidate.getName().equals(method)) {
                return (Set<PluginBundle>) (candidate.getParameterCount() == 1
                    ? candidate.invoke(null, folder)
                    : candidate.invoke(null, folder, false));
            }
        }
        throw new IllegalStateException("This Elasticsearch has no PluginsLoader." + method);
    }
}
