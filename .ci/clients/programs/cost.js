// Measures what calls cost a program that uses axios 0.21:
//
//	cost.js URL TEXT CALLS CONCURRENCY
//
// It warms up, prints an empty line and waits for a line on its standard input;
// then it makes the calls, each of which has to be answered by TEXT, and prints
// the CPU time it took for them, in microseconds, as {"cpu": N}.
'use strict';
const axios = require('axios-0.21');

const [url, text, calls, concurrency] = process.argv.slice(2);
const WARM_UP = 500;

async function run(total) {
  let left = total;
  const worker = async () => {
    while (left-- > 0) {
      const { data } = await axios.get(url);
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
