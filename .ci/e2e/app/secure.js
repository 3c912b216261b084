// An upstream that speaks https on port 8443, with the certificate in /tls. /seen on
// port 8081 has its counts.
'use strict';
const fs = require('fs');
const http = require('http');
const https = require('https');

const seen = { connections: 0, requests: 0, handshakes: 0 };

const server = https.createServer({ cert: fs.readFileSync('/tls/tls.crt'), key: fs.readFileSync('/tls/tls.key') }, (request, response) => {
  seen.requests++;
  response.end(process.env.HOSTNAME);
});
server.on('connection', () => seen.connections++);
server.on('secureConnection', () => seen.handshakes++);
server.keepAliveTimeout = 60000;
server.listen(8443);

http.createServer((request, response) => response.end(JSON.stringify(seen))).listen(8081);

process.once('SIGTERM', () => process.exit(0));
