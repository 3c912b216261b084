// A program whose calls are all https: four at a time, each on a connection of its
// own. /seen on port 8080 says how it went, and what CPU the process has used.
'use strict';
const http = require('http');
const { get, seen } = require('./calls');

async function caller() {
  for (;;) {
    await get(process.env.UPSTREAM);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

http.createServer((request, response) => {
  const { user, system } = process.cpuUsage();
  response.end(JSON.stringify(Object.assign({ cpu: (user + system) / 1e6 }, seen)));
}).listen(8080);
for (let n = 0; n < 4; n++) {
  caller();
}
