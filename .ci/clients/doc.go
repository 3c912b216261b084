// Package clients runs real HTTP clients through a real carpool process.
//
// Its tests are the check that carpool does what it is for: applications that
// open a connection per request, written against the HTTP libraries of the
// last ten years, get right answers and share a few upstream connections.
//
//	cd .ci/clients && go test ./...
//
// Every client program in the folder programs is called the same way:
//
//	PROGRAM BASE_URL CALLS TAG UPLOAD_FILE UPLOAD_SHA256 DOWNLOAD_SHA256
//
// and does, in this order, by default each on a connection of its own:
//
//   - CALLS times GET BASE_URL/echo?tag=TAG&n=N, N counting from 1, whose
//     answer has to be "TAG N" and nothing else;
//   - POST BASE_URL/upload with the bytes of UPLOAD_FILE, whose answer has to
//     be the SHA-256 in hex of what arrived, so UPLOAD_SHA256;
//   - GET BASE_URL/download, a chunked body, whose SHA-256 has to be
//     DOWNLOAD_SHA256.
//
// It exits 0 if all of that was so, and otherwise says on stderr what was not.
// The upstreams count what they see; the tests believe those counts rather
// than the programs.
//
// Node.js is run a second time as it is in a pod, with the script of carpool
// preload: there the connections that carpool accepts are counted as well. And a
// third time over https, by that script as well, with certificates that hold and
// such that do not. The programs agents.js, cost.js, forks.js and rotate.js are for
// that script alone; each says how it is called. With "fail" in the place of CALLS,
// client.js prints the codes of the errors that it gets. TestPreloadCost, a measurement, is run by make bench-preload only.
//
// Real proxies stand between carpool and upstreams in hop_test.go: Squid,
// tinyproxy, and another carpool.
//
// TestX14FiveNginxAreRestartedUnderLoad is about the other side: five real
// servers that are restarted while requests come.
//
// The README's table of clients is that of table_test.go, which holds it to the
// clients that are tested:
//
//	go test . -run TheTable -update
//
// What the tests need beyond Go: nginx, Apache, Puma, Squid, tinyproxy, curl, wget, ruby, PHP and
// Perl with their packages for HTTP, a JDK, python3 with venv, and npm 7 or
// later; install.sh installs them on Debian. A test whose tool is
// missing is skipped, or fails if CARPOOL_CLIENTS_REQUIRED is set. Node.js in
// all its versions and the client libraries are installed on first use (about
// 1 GB) below CARPOOL_CLIENTS_CACHE, by default carpool-clients in the user's
// cache directory. CARPOOL_BIN names a carpool binary to test; without it the
// tests build one.
package clients
