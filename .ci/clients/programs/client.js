// The client program for Node.js 10 and later; ../doc.go says what it does.
// Its first argument names the library, http.get and http.request being those
// that come with Node.js, of https where the URL says so, and aws-sdk-2 these with
// an agent like that library's; the second is default-agent, or
// closing-agent for a default agent that keeps no connection.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const https = require('https');

const [library, agent, base, calls, tag, uploadFile, uploadHash, downloadHash] = process.argv.slice(2);

const core = base.startsWith('https:') ? https : http;

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

function needleClient() {
  const needle = require(library);
  const send = async (method, url, body) => {
    const response = await needle(method, url, body, { parse: false });
    if (response.statusCode !== 200) {
      throw new Error(`status ${response.statusCode}: ${response.body}`);
    }
    return response.body;
  };
  return { get: (url) => send('get', url, null), post: (url, body) => send('post', url, body) };
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

// collect resolves to the body of the answer to a core request, sent with body.
function collect(request, body) {
  return new Promise((resolve, reject) => {
    request.on('error', reject);
    request.on('response', (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('aborted', () => reject(new Error('the answer broke off')));
      response.on('end', () => {
        const all = Buffer.concat(chunks);
        if (response.statusCode === 200) {
          resolve(all);
        } else {
          reject(new Error(`status ${response.statusCode}: ${all}`));
        }
      });
    });
    request.end(body);
  });
}

function partsOf(url) {
  const { hostname, port, pathname, search } = new URL(url);
  return { hostname, port, path: pathname + search };
}

// awsClient has an agent like that of version 2 of the AWS SDK.
function awsClient() {
  const agent = new core.Agent({ rejectUnauthorized: true, maxSockets: 50 });
  agent.setMaxListeners(0);
  const send = (url, options, body) => collect(core.request(Object.assign({ agent }, partsOf(url), options)), body);
  return { get: (url) => send(url), post: (url, body) => send(url, { method: 'POST', headers: { 'Content-Length': body.length } }, body) };
}

// coreClient goes through the overloads of get or request in turn.
function coreClient(ask) {
  const overloads = [
    (url, options) => ask(url, options),
    (url, options) => ask(new URL(url), options),
    (url, options) => ask(Object.assign(partsOf(url), options)),
    (url, options) => ask(url, options, () => {}),
    (url, options) => ask(new URL(url), options, () => {}),
    (url, options) => ask(Object.assign(partsOf(url), options), () => {}),
    (url) => ask(url),
    (url) => ask(new URL(url), () => {}),
  ];
  let calls = 0;
  return {
    get: (url) => collect(overloads[calls++ % overloads.length](url, { headers: { Accept: '*/*' } })),
    post: (url, body) => collect(core.request(url, { method: 'POST', headers: { 'Content-Length': body.length } }), body),
  };
}

// gotClient has the time limits that look at what happens on the connection.
function gotClient() {
  const got = require(library);
  const timeout = { lookup: 10000, connect: 10000, secureConnect: 10000, socket: 30000, response: 30000 };
  if (library === 'got-9') {
    return {
      get: async (url) => (await got(url, { encoding: null, timeout, retry: 0 })).body,
      post: async (url, body) => (await got.post(url, { encoding: null, timeout, retry: 0, body })).body,
    };
  }
  return {
    get: (url) => got(url, { timeout, retry: 0 }).buffer(),
    post: (url, body) => got.post(url, { timeout, retry: 0, body }).buffer(),
  };
}

function fetchClient() {
  const fetch = require(library);
  const send = async (url, options) => {
    const response = await fetch(url, options);
    if (!response.ok) {
      throw new Error(`status ${response.status}: ${await response.text()}`);
    }
    return response.buffer();
  };
  return { get: (url) => send(url), post: (url, body) => send(url, { method: 'POST', body }) };
}

function superagentClient() {
  const superagent = require(library);
  const bytes = (response, callback) => {
    const chunks = [];
    response.on('data', (chunk) => chunks.push(chunk));
    response.on('end', () => callback(null, Buffer.concat(chunks)));
  };
  const send = async (request) => (await request.buffer(true).parse(bytes)).body;
  return {
    get: (url) => send(superagent.get(url)),
    post: (url, body) => send(superagent.post(url).type('application/octet-stream').send(body)),
  };
}

// undiciClient asks by fetch: that of Node.js itself, or of undici with a way
// through the proxy. A new one for each call is a connection, and a CONNECT, for each.
function undiciClient(undici, agentForEach) {
  const { fetch, EnvHttpProxyAgent, ProxyAgent } = undici;
  const shared = EnvHttpProxyAgent && !agentForEach ? new EnvHttpProxyAgent() : undefined;
  const send = async (url, options) => {
    const dispatcher = agentForEach ? new ProxyAgent(process.env.HTTP_PROXY) : shared;
    try {
      const response = await fetch(url, Object.assign({ dispatcher }, options));
      if (!response.ok) {
        throw new Error(`status ${response.status}: ${await response.text()}`);
      }
      return Buffer.from(await response.arrayBuffer());
    } finally {
      if (agentForEach) {
        await dispatcher.close();
      }
    }
  };
  return { get: (url) => send(url), post: (url, body) => send(url, { method: 'POST', body }) };
}

const clients = {
  'fetch': () => undiciClient({ fetch: globalThis.fetch }),
  'aws-sdk-2': awsClient,
  'got-10': gotClient,
  'got-11': gotClient,
  'got-9': gotClient,
  'http.get': () => coreClient(core.get),
  'http.request': () => coreClient(core.request),
  'needle': needleClient,
  'node-fetch': fetchClient,
  'request': requestClient,
  'superagent': superagentClient,
  'undici-6': () => undiciClient(require('undici-6'), agent === 'closing-agent'),
  'undici-7': () => undiciClient(require('undici-7'), agent === 'closing-agent'),
  'undici-8': () => undiciClient(require('undici-8'), agent === 'closing-agent'),
};

function same(what, got, want) {
  if (got !== want) {
    throw new Error(`${what}: got ${JSON.stringify(got.slice(0, 200))}, want ${JSON.stringify(want)}`);
  }
}

// printFailures calls each URL three times, and prints the codes of the errors.
async function printFailures(client, urls) {
  const codes = [];
  for (const url of urls) {
    for (let n = 1; n <= 3; n++) {
      const err = await client.get(url).then(() => ({ code: 'none' }), (e) => e);
      codes.push(err.code || (err.cause && err.cause.code) || String(err));
    }
  }
  console.log(JSON.stringify(codes));
}

async function main() {
  const client = (clients[library] || axiosClient)();
  if (calls === 'fail') {
    return printFailures(client, [base].concat(process.argv.slice(6)));
  }
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
