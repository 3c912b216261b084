<?php
// The client program for PHP's curl, a handle per call; ../doc.go says what it does.
[, $base, $calls, $tag, $uploadFile, $uploadHash, $downloadHash] = $argv;

function send(string $url, ?string $body = null): string
{
    $handle = curl_init($url);
    curl_setopt($handle, CURLOPT_RETURNTRANSFER, true);
    curl_setopt($handle, CURLOPT_CAINFO, getenv('CURL_CA_BUNDLE'));
    if ($body !== null) {
        curl_setopt($handle, CURLOPT_POSTFIELDS, $body);
        curl_setopt($handle, CURLOPT_HTTPHEADER, ['Content-Type: application/octet-stream']);
    }
    $answer = curl_exec($handle);
    if ($answer === false) {
        fail($url . ': ' . curl_error($handle));
    }
    $status = curl_getinfo($handle, CURLINFO_RESPONSE_CODE);
    if ($status !== 200) {
        fail("status $status: $answer");
    }
    curl_close($handle);
    return $answer;
}

function fail(string $text): never
{
    fwrite(STDERR, $text . "\n");
    exit(1);
}

function same(string $what, string $got, string $want): void
{
    if ($got !== $want) {
        fail("$what: got '" . substr($got, 0, 200) . "', want '$want'");
    }
}

for ($n = 1; $n <= (int) $calls; $n++) {
    same("call $n", send("$base/echo?tag=$tag&n=$n"), "$tag $n");
}
same('upload', send("$base/upload", file_get_contents($uploadFile)), $uploadHash);
$downloaded = send("$base/download");
same('download of ' . strlen($downloaded) . ' bytes', hash('sha256', $downloaded), $downloadHash);
