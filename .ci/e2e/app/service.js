// A service: every request to it is a call of the upstream, and it polls the
// upstream all the time, also while it ends. It calls the upstream before
// anything else, and once: if the proxy it is told to use is not there yet, it
// fails.
'use strict';
const http = require('http');
const { get, leave } = require('./calls');

const upstream = process.env.UPSTREAM;
const drain = 5000; // ms after SIGTERM in which requests still come
let stopping = false;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function poll() {
  while (!stopping) {
    await get(upstream);
    await sleep(50);
  }
}

const server = http.createServer(async (request, response) => {
  if (request.url === '/healthz') {
    return response.end('ok\n');
  }
  const text = await get(upstream);
  response.statusCode = text === null ? 502 : 200;
  response.end(`${text}\n`);
});

async function main() {
  if (await get(upstream) === null) {
    return leave();
  }
  console.log('first call: ok');
  server.listen(8080);
  const polling = poll();
  await new Promise((resolve) => process.once('SIGTERM', resolve));
  await sleep(drain);
  stopping = true;
  await polling;
  server.close(leave);
}

main();
