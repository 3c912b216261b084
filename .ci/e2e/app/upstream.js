// The upstream: a default http.Server, so one that closes idle connections
// after five seconds. It answers with its pod's name. After SIGTERM it serves
// on for a while, and asks for a new connection with every answer, so that the
// calls move to other pods. /seen on port 8081 has its counts.
'use strict';
const http = require('http');

const drain = 5000; // ms after SIGTERM in which connections still come
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
  stopping = true;
  setTimeout(() => server.close(() => process.exit(0)), drain);
});
