// The client program for Node.js 10 and later; ../doc.go says what it does.
// Its first argument names the library; the second is default-agent, or
// closing-agent for a default agent that keeps no connection.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const https = require('https');

const [library, agent, base, calls, tag, uploadFile, uploadHash, downloadHash] = process.argv.slice(2);

// The default agent up to Node.js 18; later ones keep connections.
if (agent === 'closing-agent') {
  http.globalAgent = new http.Agent({ keepAlive: false });
  https.globalAgent = new https.Agent({ keepAlive: false });
}

function axiosClient() {
  let axios;
  try {
    axios = require(library);
  } catch (err) {
    // Node.js 10 and axios 1.6: it knows no "exports", so it finds a module
    // it cannot parse. Applications there name the file, as here.
    axios = require(library + '/dist/node/axios.cjs');
  }
  const options = { responseType: 'arraybuffer' };
  return {
    get: async (url) => (await axios.get(url, options)).data,
    post: async (url, body) => (await axios.post(url, body, options)).data,
  };
}

function requestClient() {
  const request = require(library);
  const send = (options) => new Promise((resolve, reject) => {
    request(Object.assign({ encoding: null }, options), (err, response, body) => {
      if (err) {
        reject(err);
      } else if (response.statusCode !== 200) {
        reject(new Error(`status ${response.statusCode}: ${body}`));
      } else {
        resolve(body);
      }
    });
  });
  return {
    get: (url) => send({ url }),
    post: (url, body) => send({ url, body, method: 'POST' }),
  };
}

function same(what, got, want) {
  if (got !== want) {
    throw new Error(`${what}: got ${JSON.stringify(got.slice(0, 200))}, want ${JSON.stringify(want)}`);
  }
}

async function main() {
  const client = library === 'request' ? requestClient() : axiosClient();
  for (let n = 1; n <= Number(calls); n++) {
    const body = await client.get(`${base}/echo?tag=${tag}&n=${n}`);
    same(`call ${n}`, body.toString(), `${tag} ${n}`);
  }
  const answer = await client.post(`${base}/upload`, fs.readFileSync(uploadFile));
  same('upload', answer.toString(), uploadHash);
  const body = await client.get(`${base}/download`);
  same(`download of ${body.length} bytes`, crypto.createHash('sha256').update(body).digest('hex'), downloadHash);
}

main().catch((err) => {
  const body = err.response && err.response.data ? `: ${err.response.data}` : '';
  console.error((err.stack || err) + body);
  process.exit(1);
});
