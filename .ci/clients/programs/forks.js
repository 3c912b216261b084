// Makes 100 calls in this process, in a fork and, where there are any, in a thread,
// or 200 in the fork; each has to be answered by TEXT:
//
//	forks.js URL TEXT
'use strict';
const { fork } = require('child_process');
const https = require('https');

let threads;
try {
  threads = require('worker_threads');
} catch (err) {
  threads = null; // Node.js 10
}
const isThread = threads !== null && !threads.isMainThread;
const [url, text, calls] = isThread ? threads.workerData : process.argv.slice(2);

function call() {
  return new Promise((resolve, reject) => {
    https.get(url, { agent: new https.Agent() }, (response) => {
      let body = '';
      response.on('data', (data) => { body += data; });
      response.on('end', () => body === text ? resolve() : reject(new Error(`${response.statusCode} ${body}`)));
    }).on('error', reject);
  });
}

async function main() {
  for (let n = 0; n < Number(calls || 100); n++) {
    await call();
  }
  if (calls) {
    return;
  }
  const child = fork(__filename, [url, text, threads ? '100' : '200']);
  await new Promise((resolve, reject) => child.on('exit', (code) => code === 0 ? resolve() : reject(new Error(`the fork exits with ${code}`))));
  if (threads) {
    const worker = new threads.Worker(__filename, { workerData: [url, text, '100'] });
    await new Promise((resolve, reject) => worker.on('error', reject).on('exit', resolve));
  }
}

main().catch((err) => {
  console.error(err.stack || err);
  process.exit(1);
});
