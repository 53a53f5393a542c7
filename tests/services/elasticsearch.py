"""Real Elasticsearch servers for the tests.

In this order: the server that ``ELASTICSEARCH_URL`` names; a container, where a Docker engine answers;
a node made from Maven Central's jars, which needs no download but from a package registry.
Run as a module, it fetches and builds what the tests need: ``python -m tests.services.elasticsearch``.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from tests.services.system import cache_folder, need_command, need_jdk

VERSIONS = ("9.5.3", "8.19.21")
CONFIGURED = "configured"
_LAUNCHER = Path(__file__).parent / "elasticsearch_launcher" / "Launcher.java"
_IMAGE = "docker.elastic.co/elasticsearch/elasticsearch"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tanyuan</groupId><artifactId>test-node</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.elasticsearch</groupId><artifactId>elasticsearch</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.elasticsearch.plugin</groupId><artifactId>transport-netty4</artifactId>
      <version>{version}</version>
    </dependency>
  </dependencies>
</project>
"""
_LOGGING = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


class ServerFailed(RuntimeError):
    """A server did not come up; the message ends with its log."""


def targets() -> tuple[str, ...]:
    """What the tests run on: the configured server alone, else each of VERSIONS."""
    return (CONFIGURED,) if os.environ.get("ELASTICSEARCH_URL") else VERSIONS


@contextmanager
def server(target: str) -> Iterator[str]:
    """The URL of a running server for one of ``targets()``."""
    if target == CONFIGURED:
        yield os.environ["ELASTICSEARCH_URL"]
    elif docker_answers():
        with _container(target) as url:
            yield url
    else:
        with own_node(target) as node:
            yield node.url


def jdk(version: str) -> Path:
    """9.x is Java 21 byte code; 8.19 runs on 17 and was tried on that."""
    return need_jdk(17, 24) if version.startswith("8.") else need_jdk(21, 25)


def provision(cache: Path, version: str) -> Path:
    """The home folder of a version, fetched and built if it is not in the cache yet.

    Holds ``lib``, ``modules``, ``plugins`` and the compiled ``launcher``. Nothing writes into it
    afterwards: a node has its configuration, data and logs in a folder of its own.
    """
    # The launcher's hash is part of the name, so that a changed launcher is a new home.
    stamp = hashlib.sha256(_LAUNCHER.read_bytes()).hexdigest()[:8]
    home = cache / f"elasticsearch-{version}-{stamp}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"elasticsearch-{version}.lock"):
        if not home.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"{home.name}.") as building:
                _build(Path(building) / "home", version)
                (Path(building) / "home").rename(home)
    return home


def _build(home: Path, version: str) -> None:
    jars = home.parent / "jars"
    netty = home / "modules" / "transport-netty4"
    for folder in (home / "lib", netty, home / "plugins", home / "launcher"):
        folder.mkdir(parents=True)
    (home.parent / "pom.xml").write_text(_POM.format(version=version), "utf-8")
    maven = need_command("mvn", packages=("maven",))
    _run(
        [maven, "-B", "-q", "dependency:copy-dependencies", f"-DoutputDirectory={jars}"],
        folder=home.parent,
    )
    for jar in sorted(jars.glob("*.jar")):
        in_module = jar.name.startswith(("netty-", "transport-netty4-"))
        jar.rename((netty if in_module else home / "lib") / jar.name)
    with zipfile.ZipFile(netty / f"transport-netty4-{version}.jar") as archive:
        for name in ("plugin-descriptor.properties", "entitlement-policy.yaml"):
            content = archive.read(f"META-INF/es-plugins/transport-netty4/{name}")
            (netty / name).write_bytes(content)
    javac = jdk(version) / "bin" / "javac"
    _run([javac, "-d", home / "launcher", "-cp", f"{home / 'lib'}/*", _LAUNCHER], folder=home)


def _run(command: list[str | Path], *, folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise ServerFailed(f"{command[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


@dataclass(kw_only=True)
class Node:
    """A node of our own, which a test may stop, kill, pause and start again on its data."""

    version: str
    home: Path
    folder: Path
    heap_mb: int = 384
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0  # of HTTP; 0 until the first start, then kept
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "node.log").read_text("utf-8", errors="replace")

    def start(self, *, timeout: float = 120) -> None:
        """Start and wait until it serves. Raises ServerFailed."""
        self.launch()
        self.wait(timeout=timeout)

    def launch(self) -> None:
        """Start, without waiting; ``wait`` has to follow."""
        config = self.folder / "config"
        config.mkdir(parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        (config / "log4j2.properties").write_text(_LOGGING, "utf-8")
        settings = {
            "cluster.name": f"tests-{os.getpid()}-{self.folder.name}",
            "node.name": "tests",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": str(self.port),
            "transport.port": "0",
            "path.data": str(self.folder / "data"),
            "path.logs": str(self.folder / "logs"),
            "path.repo": str(self.folder / "snapshots"),
            # A full disk on the machine is no reason to fail; the tests set the block themselves.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            **self.settings,
        }
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in settings.items()]
        (config / "elasticsearch.yml").write_text("".join(lines), "utf-8")
        with (self.folder / "node.log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command(config), stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
            )

    def wait(self, *, timeout: float = 120) -> None:
        """Until it serves. Raises ServerFailed."""
        try:
            self._wait(time.monotonic() + timeout)
        except BaseException:
            self.kill()
            raise

    def _command(self, config: Path) -> list[str]:
        native = ["ALL-UNNAMED", "org.elasticsearch.nativeaccess", "org.apache.lucene.core"]
        if not self.version.startswith("8."):
            native.append("org.elasticsearch.foreign")
        return [
            str(jdk(self.version) / "bin" / "java"),
            f"-Xms{self.heap_mb}m",
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",  # starts in half the time; tests don't need the peak speed
            "-XX:+ExitOnOutOfMemoryError",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Des.path.home={self.home}",
            *("-p", str(self.home / "lib")),
            *("--add-modules", "jdk.incubator.vector,ALL-MODULE-PATH"),
            f"--enable-native-access={','.join(native)}",
            *("-cp", str(self.home / "launcher")),
            *("Launcher", str(config)),
        ]

    def _wait(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise ServerFailed(f"Elasticsearch {self.version} ended:\n{self.log[-5000:]}")
            bound = re.search(r"HttpServerTransport\] publish_address \{\S+?:(\d+)\}", self.log)
            if bound:
                self.port = int(bound[1])
                if _serves(self.port):
                    return
            time.sleep(0.1)
        raise ServerFailed(f"Elasticsearch {self.version} is not up in time:\n{self.log[-5000:]}")

    def stop(self) -> None:
        """Shut down in order."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()  # the launcher's sign to stop
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            if self.process.stdin is not None:
                self.process.stdin.close()
        self.process = None

    def pause(self) -> None:
        """The node answers nothing until ``resume``, and its connections stay open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def _serves(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=20s")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def own_node(
    version: str = VERSIONS[0],
    *,
    folder: Path | None = None,
    heap_mb: int = 384,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Node]:
    """A started node with its data in ``folder``, or in a temporary one that is removed after.

    For tests that stop or kill it; others share one by ``server``. It ends with this process.
    """
    work = folder or Path(tempfile.mkdtemp(prefix="tanyuan-es-", dir=_work_place()))
    home = provision(cache_folder(), version)
    node = Node(
        version=version, home=home, folder=work, heap_mb=heap_mb, settings=dict(settings or {})
    )
    try:
        node.start()
        yield node
    finally:
        node.kill() if folder is None else node.stop()
        if folder is None:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def own_cluster(
    version: str = VERSIONS[0], *, nodes: int = 3, heap_mb: int = 384
) -> Iterator[list[Node]]:
    """Started nodes of one cluster, for tests that kill some of them. They end with this process."""
    home = provision(cache_folder(), version)
    work = Path(tempfile.mkdtemp(prefix="tanyuan-es-", dir=_work_place()))
    # Each node has to know the others' ports before any of them runs.
    with ExitStack() as reserved:
        sockets = [reserved.enter_context(socket.socket()) for _ in range(nodes)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    names = [f"node-{number}" for number in range(nodes)]
    cluster = [
        Node(
            version=version,
            home=home,
            folder=work / name,
            heap_mb=heap_mb,
            settings={
                "cluster.name": f"tests-{os.getpid()}-{work.name}",
                "node.name": name,
                "discovery.type": "multi-node",
                "discovery.seed_hosts": ",".join(f"127.0.0.1:{port}" for port in ports),
                "cluster.initial_master_nodes": ",".join(names),
                "transport.port": str(port),
                "path.repo": str(work / "snapshots"),
            },
        )
        for name, port in zip(names, ports, strict=True)
    ]
    try:
        for node in cluster:
            node.launch()
        for node in cluster:
            node.wait()
        yield cluster
    finally:
        for node in cluster:
            node.kill()
        shutil.rmtree(work, ignore_errors=True)


def _work_place() -> Path | None:
    """Memory where there is enough: creating indices waits for the disk many times otherwise."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * 1024**3
    return memory if roomy and os.access(memory, os.W_OK) else None


def docker_answers() -> bool:
    """Whether a Docker engine answers here."""
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return asked.returncode == 0


@contextmanager
def _container(version: str) -> Iterator[str]:
    """The official image, reachable from this machine alone."""
    options = {
        "discovery.type": "single-node",
        "xpack.security.enabled": "false",
        "cluster.routing.allocation.disk.threshold_enabled": "false",
        "ES_JAVA_OPTS": "-Xms512m -Xmx512m",
    }
    command = ["docker", "run", "--rm", "--detach", "--publish", "127.0.0.1::9200"]
    for key, value in options.items():
        command += ["--env", f"{key}={value}"]
    container = _docker([*command, f"{_IMAGE}:{version}"])
    try:
        port = int(_docker(["docker", "port", container, "9200/tcp"]).rpartition(":")[2])
        deadline = time.monotonic() + 120
        while not _serves(port):
            if time.monotonic() > deadline:
                raise ServerFailed(_docker(["docker", "logs", "--tail", "50", container]))
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        _docker(["docker", "rm", "--force", container])


def _docker(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise ServerFailed(f"{' '.join(command[:2])} failed: {done.stderr[-2000:]}")
    return done.stdout.strip()


def main() -> None:
    """Fetch and build what the tests need, so that they need no network later."""
    if docker_answers():
        print("A Docker engine answers; own nodes are still built for the tests that kill them.")  # noqa: T201
    for version in VERSIONS:
        print(f"Elasticsearch {version}: {provision(cache_folder(), version)}")  # noqa: T201


if __name__ == "__main__":
    main()
