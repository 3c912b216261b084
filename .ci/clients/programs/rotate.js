// Calls an upstream by agents without keep-alive, has it replace its certificate,
// and prints the codes of the errors of three more calls:
//
//	rotate.js URL
'use strict';
const https = require('https');

const [base] = process.argv.slice(2);

function call(path) {
  return new Promise((resolve, reject) => {
    https.get(base + path, { agent: new https.Agent() }, (response) => {
      response.resume();
      response.on('end', resolve);
    }).on('error', reject);
  });
}

async function main() {
  for (let n = 0; n < 30; n++) {
    await call('/');
    await new Promise((resolve) => setImmediate(resolve));
  }
  await call('/rotate');
  for (let n = 0; n < 3; n++) {
    console.log(await call('/').then(() => 'none', (err) => err.code));
  }
}

main().catch((err) => {
  console.error(err.stack || err);
  process.exit(1);
});
