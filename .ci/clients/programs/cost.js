// Measures what calls cost a program that uses a library, or core for what comes
// with Node.js:
//
//	cost.js LIBRARY URL TEXT CALLS CONCURRENCY
//
// It warms up, prints an empty line and waits for a line on its standard input;
// then it makes the calls, each of which has to be answered by TEXT, and prints
// the CPU time it took for them, in microseconds, as {"cpu": N}.
'use strict';
const [library, url, text, calls, concurrency] = process.argv.slice(2);
const WARM_UP = 500;

const core = require(url.startsWith('https:') ? 'https' : 'http');

function ask() {
  return new Promise((resolve, reject) => {
    core.get(url, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (data) => { body += data; });
      response.on('end', () => resolve(body));
    }).on('error', reject);
  });
}

const axios = library === 'core' ? null : require(library);
const get = axios ? async () => (await axios.get(url)).data : ask;

async function run(total) {
  let left = total;
  const worker = async () => {
    while (left-- > 0) {
      const data = await get();
      if (data !== text) {
        throw new Error(`got ${JSON.stringify(data)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: Number(concurrency) }, worker));
}

async function main() {
  await run(WARM_UP);
  console.log();
  await new Promise((resolve) => process.stdin.once('data', resolve));
  const before = process.cpuUsage();
  await run(Number(calls));
  const { user, system } = process.cpuUsage(before);
  console.log(JSON.stringify({ cpu: user + system }));
  process.exit();
}

main().catch((err) => {
  console.error(err.stack || err);
  process.exit(1);
});
