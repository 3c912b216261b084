// Calls of the upstream as old services make them: axios with Node.js 12's
// default agent, so a connection for each request. With CLIENT=core it is
// Node.js' own http or https module, which know no proxy.
'use strict';
const axios = require('axios');
const fs = require('fs');
const http = require('http');
const https = require('https');

const seen = { calls: 0, failed: 0, errors: {} };

function coreGet(url) {
  return new Promise((resolve, reject) => {
    (url.startsWith('https:') ? https : http).get(url, (response) => {
      let data = '';
      response.setEncoding('utf8');
      response.on('data', (text) => { data += text; });
      response.on('end', () => (response.statusCode === 200 ? resolve({ data })
        : reject(new Error(`${response.statusCode} ${data}`))));
    }).on('error', reject);
  });
}

const client = process.env.CLIENT === 'core' ? coreGet : (url) => axios.get(url, { timeout: 20000 });

// get makes one call and counts it. It resolves to the answer's text, or to
// null if the call failed.
exports.get = async function get(url) {
  seen.calls++;
  try {
    return String((await client(url)).data);
  } catch (err) {
    seen.failed++;
    const body = err.response ? `${err.response.status} ${err.response.data}` : err.message;
    seen.errors[body.slice(0, 200)] = (seen.errors[body.slice(0, 200)] || 0) + 1;
    return null;
  }
};

exports.seen = seen;

// leave ends the process with what it saw as its last words: in its log and
// in the container's status.
exports.leave = function leave() {
  const words = JSON.stringify(seen);
  console.log(words);
  fs.writeFileSync('/dev/termination-log', words.slice(0, 4000));
  process.exit(seen.failed === 0 ? 0 : 1);
};
