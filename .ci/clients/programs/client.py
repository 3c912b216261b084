"""The client program for Python; ../doc.go says what it does.

Its first argument names the library: urllib or requests, aiohttp or httpx, or http.client, which asks for
a tunnel. Each opens a connection per call.
"""
import asyncio
import hashlib
import http.client
import os
import ssl
import sys
import urllib.parse
import urllib.request

library, base, calls, tag, upload_file, upload_hash, download_hash = sys.argv[1:]


def with_urllib(url, body=None):
    with urllib.request.urlopen(url, data=body) as response:
        return response.read()


def with_requests(url, body=None):
    import requests

    # Without a Session, requests opens and closes a connection per call.
    response = requests.post(url, data=body) if body else requests.get(url)
    if response.status_code != 200:
        sys.exit(f"status {response.status_code}: {response.text}")
    return response.content


def with_aiohttp(url, body=None):
    async def send():
        import aiohttp

        # trust_env: or else aiohttp knows no HTTP_PROXY.
        connector = aiohttp.TCPConnector(ssl=tls_context())
        async with aiohttp.ClientSession(trust_env=True, connector=connector) as session:
            async with session.request("POST" if body else "GET", url, data=body) as response:
                answer = await response.read()
                if response.status != 200:
                    sys.exit(f"status {response.status}: {answer}")
                return answer

    return asyncio.run(send())


def with_httpx(url, body=None):
    import httpx

    response = httpx.request("POST" if body else "GET", url, content=body, verify=tls_context())
    if response.status_code != 200:
        sys.exit(f"status {response.status_code}: {response.text}")
    return response.content


def tls_context():
    return ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])


def with_http_client(url, body=None):
    target, proxy = urllib.parse.urlsplit(url), urllib.parse.urlsplit(os.environ["HTTP_PROXY"])
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(proxy.hostname, proxy.port)
    connection.set_tunnel(target.hostname, target.port)
    connection.request("POST" if body else "GET", url[len(f"{target.scheme}://{target.netloc}"):], body)
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        sys.exit(f"status {response.status}: {answer}")
    connection.close()
    return answer


def same(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got[:200]!r}, want {want!r}")


send = {
    "aiohttp": with_aiohttp,
    "http.client": with_http_client,
    "httpx": with_httpx,
    "requests": with_requests,
    "urllib": with_urllib,
}[library]

for n in range(1, int(calls) + 1):
    same(f"call {n}", send(f"{base}/echo?tag={tag}&n={n}").decode(), f"{tag} {n}")

with open(upload_file, "rb") as f:
    same("upload", send(f"{base}/upload", f.read()).decode(), upload_hash)

downloaded = send(f"{base}/download")
same(f"download of {len(downloaded)} bytes", hashlib.sha256(downloaded).hexdigest(), download_hash)
