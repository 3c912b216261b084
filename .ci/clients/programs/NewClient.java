import java.io.FileInputStream;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.CertificateFactory;
import java.util.HexFormat;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * The client program for java.net.http.HttpClient, of Java 11 and later; ../doc.go
 * says what it does. The proxy is a system property: see javaProgram in
 * ../matrix_test.go.
 */
public class NewClient {
    static HttpClient client;

    public static void main(String[] args) throws Exception {
        String base = args[0], tag = args[2], uploadHash = args[4], downloadHash = args[5];
        int calls = Integer.parseInt(args[1]);
        client = HttpClient.newBuilder().sslContext(trusting(System.getenv("SSL_CERT_FILE"))).build();

        for (int n = 1; n <= calls; n++) {
            same("call " + n, text(send(base + "/echo?tag=" + tag + "&n=" + n, null)), tag + " " + n);
        }
        same("upload", text(send(base + "/upload", Files.readAllBytes(Path.of(args[3])))), uploadHash);
        byte[] body = send(base + "/download", null);
        byte[] hash = MessageDigest.getInstance("SHA-256").digest(body);
        same("download of " + body.length + " bytes", HexFormat.of().formatHex(hash), downloadHash);
        System.exit(0);
    }

    static byte[] send(String url, byte[] upload) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url));
        if (upload != null) {
            request.POST(HttpRequest.BodyPublishers.ofByteArray(upload));
        }
        HttpResponse<byte[]> response = client.send(request.build(), BodyHandlers.ofByteArray());
        if (response.statusCode() != 200) {
            fail("status " + response.statusCode() + ": " + text(response.body()));
        }
        return response.body();
    }

    static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    static SSLContext trusting(String pemFile) throws Exception {
        KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null, null);
        try (InputStream pem = new FileInputStream(pemFile)) {
            roots.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(roots);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        return tls;
    }

    static void same(String what, String got, String want) {
        if (!got.equals(want)) {
            fail(what + ": got '" + got.substring(0, Math.min(200, got.length())) + "', want '" + want + "'");
        }
    }

    static void fail(String text) {
        System.err.println(text);
        System.exit(1);
    }
}
