import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.StringJoiner;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.TokenStream;
import org.apache.lucene.analysis.cjk.CJKAnalyzer;
import org.apache.lucene.analysis.tokenattributes.CharTermAttribute;

/**
 * The terms of Lucene's CJKAnalyzer: for each line of text its terms, joined by blanks.
 *
 * Elasticsearch's analyzer "cjk" is this class. It comes in a module that Maven Central does not carry,
 * but Lucene itself does.
 */
public final class CjkTerms {
    private CjkTerms() {}

    public static void main(String[] arguments) throws IOException {
        BufferedReader lines =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out =
            new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);
        try (Analyzer analyzer = new CJKAnalyzer()) {
            for (String line; (line = lines.readLine()) != null; ) {
                StringJoiner terms = new StringJoiner(" ");
                try (TokenStream stream = analyzer.tokenStream("text", line)) {
                    CharTermAttribute term = stream.addAttribute(CharTermAttribute.class);
                    stream.reset();
                    while (stream.incrementToken()) {
                        terms.add(term.toString());
                    }
                    stream.end();
                }
                out.println(terms);
                out.flush();
            }
        }
    }
}
