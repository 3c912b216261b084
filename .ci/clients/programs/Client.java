import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.CertificateFactory;
import java.util.HexFormat;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * The client program for Java's HttpURLConnection; ../doc.go says what it does.
 * The proxy and keep-alive are system properties: see javaProgram in
 * ../matrix_test.go.
 */
public class Client {
    public static void main(String[] args) throws Exception {
        String base = args[0], tag = args[2], uploadHash = args[4], downloadHash = args[5];
        int calls = Integer.parseInt(args[1]);
        byte[] upload = Files.readAllBytes(Path.of(args[3]));
        trust(System.getenv("SSL_CERT_FILE"));

        for (int n = 1; n <= calls; n++) {
            byte[] body = send(base + "/echo?tag=" + tag + "&n=" + n, null);
            same("call " + n, new String(body, StandardCharsets.UTF_8), tag + " " + n);
        }
        same("upload", new String(send(base + "/upload", upload), StandardCharsets.UTF_8), uploadHash);
        byte[] body = send(base + "/download", null);
        byte[] hash = MessageDigest.getInstance("SHA-256").digest(body);
        same("download of " + body.length + " bytes", HexFormat.of().formatHex(hash), downloadHash);
    }

    static byte[] send(String url, byte[] upload) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        if (upload != null) {
            connection.setDoOutput(true);
            connection.setFixedLengthStreamingMode(upload.length);
            connection.getOutputStream().write(upload);
        }
        if (connection.getResponseCode() != 200) {
            InputStream body = connection.getErrorStream();
            fail("status " + connection.getResponseCode() + ": "
                    + (body == null ? "" : new String(body.readAllBytes(), StandardCharsets.UTF_8)));
        }
        try (InputStream body = connection.getInputStream()) {
            return body.readAllBytes();
        }
    }

    static void trust(String pemFile) throws Exception {
        KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null, null);
        try (InputStream pem = new FileInputStream(pemFile)) {
            roots.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(roots);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        HttpsURLConnection.setDefaultSSLSocketFactory(tls.getSocketFactory());
    }

    static void same(String what, String got, String want) {
        if (!got.equals(want)) {
            fail(what + ": got '" + got + "', want '" + want + "'");
        }
    }

    static void fail(String message) {
        System.err.println(message);
        System.exit(1);
    }
}
