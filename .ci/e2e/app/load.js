// A client of the service: four at a time, each call on a connection of its
// own. /seen on port 8080 says how it went.
'use strict';
const http = require('http');
const { get, seen } = require('./calls');

async function client() {
  for (;;) {
    await get(process.env.UPSTREAM);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

http.createServer((request, response) => response.end(JSON.stringify(seen))).listen(8080);
for (let n = 0; n < 4; n++) {
  client();
}
