// The upstream: a default http.Server, so one that closes idle connections
// after five seconds. It answers with its pod's name. After SIGTERM it serves
// on for DRAIN milliseconds, and asks for a new connection with every answer, so
// that the calls move to other pods; with DRAIN=0 it dies at once, as most did.
// /seen on port 8081 has its counts.
'use strict';
const http = require('http');

const drain = Number(process.env.DRAIN || 5000);
const seen = { connections: 0, requests: 0 };
let stopping = false;

const server = http.createServer((request, response) => {
  seen.requests++;
  if (stopping) {
    response.setHeader('Connection', 'close');
  }
  response.end(process.env.HOSTNAME);
});
server.on('connection', () => seen.connections++);
server.listen(8080);

http.createServer((request, response) => response.end(JSON.stringify(seen))).listen(8081);

process.once('SIGTERM', () => {
  if (drain === 0) {
    process.exit(0);
  }
  stopping = true;
  setTimeout(() => server.close(() => process.exit(0)), drain);
});
