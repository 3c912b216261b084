// The hard cases of ../preload.js, for Node.js 10 and later.
//
//	node cases.js SCRIPT           runs all; prints {name, error} for each, in JSON
//	node cases.js SCRIPT NAME      runs one
//
// The exit status is 0 if all that were run hold.
//
// They are run in one process, one after another, except those that want an
// environment of their own, {} at least. A proxy and an origin listen in the
// same process and answer with what they saw, in JSON.
'use strict';
const assert = require('assert');
const { execFile, spawnSync } = require('child_process');
const fs = require('fs');
const http = require('http');
const https = require('https');
const net = require('net');
const path = require('path');
const tls = require('tls');

const PEM = path.join(__dirname, 'origin.pem'); // of a certificate for localhost and 127.0.0.1, and its key
const cases = {};
const KEEPS = +process.versions.node.split('.')[0] >= 19; // the default agent keeps connections

// environment adds a case that is run in a process of its own.
function environment(name, env, run) {
  cases[name] = (servers) => run(servers);
  cases[name].env = env;
}

// secure adds a case of https, with an origin that speaks TLS and whose certificate
// this process trusts.
function secure(name, run, env) {
  environment(name, Object.assign({ CARPOOL_PRELOAD_HTTPS: 'true', NODE_EXTRA_CA_CERTS: PEM }, env), async (servers) => {
    servers.origin = await listen('origin', https.createServer({ key: fs.readFileSync(PEM), cert: fs.readFileSync(PEM) }));
    servers.url = `https://127.0.0.1:${servers.origin.port}/`;
    return run(servers);
  });
}

// A test server. What it was asked is in seen. The proxy answers the script's
// question, of which it counts how often, by verdict, and what is in its failure
// as when something is wrong.
function listen(by, given) {
  const server = given || http.createServer();
  server.questions = 0;
  server.verdict = '?1';
  server.failure = null;
  server.on('request', (req, res) => {
    if (req.headers['carpool-verify']) {
      server.questions++;
      assert.deepStrictEqual([by, req.method, req.headers['max-forwards']], ['proxy', 'OPTIONS', '0']);
      res.setHeader('Carpool-Verified', server.verdict);
      res.end();
      return;
    }
    if (server.failure) {
      res.writeHead(server.failure.status || 502, server.failure.headers);
      res.end('carpool: no\n');
      return;
    }
    let body = '';
    req.on('data', (data) => { body += data; });
    req.on('end', () => {
      const seen = { by, method: req.method, url: req.url, headers: req.headers, body, connection: req.socket.serial };
      server.seen.push(seen);
      res.end(JSON.stringify(seen));
    });
  });
  server.seen = [];
  server.accepted = 0;
  server.sockets = new Set();
  server.keepAliveTimeout = 0;
  server.on('connection', (socket) => {
    socket.serial = ++server.accepted;
    server.sockets.add(socket);
    socket.on('close', () => server.sockets.delete(socket));
  });
  server.on('connect', (req, socket) => {
    server.seen.push({ by, method: req.method, url: req.url });
    socket.end('HTTP/1.1 200 OK\r\n\r\n');
  });
  server.on('upgrade', (req, socket) => {
    server.seen.push({ by, method: req.method, url: req.url });
    socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n');
  });
  server.close = () => { // sooner than when all is quiet
    net.Server.prototype.close.call(server);
    server.sockets.forEach((socket) => socket.destroy());
  };
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => {
    server.port = server.address().port;
    resolve(server);
  }));
}

// finish resolves to what the server saw.
function finish(req, body) {
  return new Promise((resolve, reject) => {
    req.on('error', reject);
    req.on('response', (res) => {
      let text = '';
      res.setEncoding('utf8');
      res.on('data', (data) => { text += data; });
      res.on('end', () => resolve(JSON.parse(text)));
    });
    req.end(body);
  });
}

const ask = (options, body) => finish(http.request(options), body);
const sask = (url, options, body) => finish(https.request(Object.assign({}, options, partsOf(url))), body);
const turn = () => new Promise((resolve) => setImmediate(resolve));

function partsOf(url) {
  const u = new URL(url);
  return { host: u.hostname, port: u.port, path: u.pathname };
}

// closes is an agent as it is by default before Node.js 19.
const closes = () => new https.Agent();

// opened asks an origin until that goes through the proxy.
async function opened(url, options) {
  https.globalAgent = KEEPS ? closes() : https.globalAgent;
  for (let i = 0; i < 1000; i++) {
    if ((await sask(url, options)).by === 'proxy') return;
    await turn();
  }
  assert.fail('it goes directly for good');
}

async function staysDirect(url, options) {
  for (let i = 0; i < 5; i++) {
    direct(await sask(url, options));
    await turn();
  }
}

async function askTimes(n, options) {
  let answer;
  for (let i = 0; i < n; i++) {
    answer = await ask(Object.assign({}, options));
    await turn(); // the connection is given back
  }
  return answer;
}

function proxied(answer, url) {
  assert.strictEqual(answer.by, 'proxy');
  assert.strictEqual(answer.url, url);
}

function direct(answer) {
  assert.strictEqual(answer.by, 'origin');
  assert.strictEqual(answer.url.charAt(0), '/');
}

// --- what is asked

cases['every overload of request and get'] = async ({ proxy }) => {
  const u = 'http://example.test:81/a?b=c';
  const o = { hostname: 'example.test', port: 81, path: '/a?b=c' };
  const asked = [
    http.request(u), http.request(new URL(u)), http.request(o), http.request(u, { headers: { A: '1' } }),
    http.request(new URL(u), { headers: { A: '1' } }), http.request(u, () => {}), http.request(o, () => {}),
    http.request(u, {}, () => {}), http.request(new URL(u), {}, () => {}), http.get(u), http.get(new URL(u)), http.get(o),
    http.get(u, {}), http.get(u, () => {}), http.get(new URL(u), {}, () => {}), new http.ClientRequest(u),
    http.request({ protocol: 'http:', host: 'example.test', port: '81', path: '/a?b=c', method: 'get', agent: undefined }),
  ];
  for (const answer of await Promise.all(asked.map((req) => finish(req)))) {
    proxied(answer, u);
    assert.strictEqual(answer.headers.host, 'example.test:81');
  }
  assert.strictEqual(proxy.seen.length, asked.length);
};

cases['named imports of ES modules are covered'] = async () => {
  if (+process.versions.node.split('.')[0] < 14) return;
  const { get } = await (new Function('return import("http")'))();
  proxied(await finish(get('http://example.test/')), 'http://example.test/');
};

cases['a callback is called once and sees the program\'s path'] = async () => {
  let calls = 0;
  const req = http.request('http://example.test/p', () => calls++);
  proxied(await finish(req), 'http://example.test/p');
  assert.strictEqual(calls, 1);
  assert.strictEqual(req.path, '/p');
  assert.strictEqual(req.getHeader('host'), 'example.test');
};

cases['a path set later counts'] = async () => {
  const req = http.request('http://example.test/p');
  req.path = '/q';
  proxied(await finish(req), 'http://example.test/q');
};

cases['bodies, sized and chunked'] = async () => {
  const sized = await ask({ host: 'example.test', method: 'POST', headers: { 'Content-Length': 3 } }, 'abc');
  assert.deepStrictEqual([sized.body, sized.headers['content-length']], ['abc', '3']);
  const req = http.request({ host: 'example.test', method: 'PUT' });
  req.write('abc');
  req.write('def');
  const chunked = await finish(req, 'g');
  proxied(chunked, 'http://example.test/');
  assert.deepStrictEqual([chunked.body, chunked.headers['transfer-encoding']], ['abcdefg', 'chunked']);
};

cases['flushHeaders'] = async () => {
  const req = http.request({ host: 'example.test', method: 'POST', path: '/f' });
  req.flushHeaders();
  proxied(await finish(req, 'x'), 'http://example.test/f');
};

cases['Expect: 100-continue, with the body held back'] = async () => {
  const req = http.request({
    host: 'example.test', method: 'POST', path: '/e', headers: { 'Expect': '100-continue', 'Content-Length': 2 },
  });
  const answer = new Promise((resolve, reject) => {
    req.on('continue', () => finish(req, 'hi').then(resolve, reject));
    req.on('error', reject);
  });
  const seen = await answer;
  proxied(seen, 'http://example.test/e');
  assert.strictEqual(seen.body, 'hi');
};

cases['headers given as an array'] = async () => {
  proxied(await ask({ host: 'example.test', path: '/a', headers: [['Host', 'example.test'], ['X', 'y']] }),
    'http://example.test/a');
};

cases['auth becomes Authorization'] = async () => {
  const answer = await ask({ host: 'example.test', auth: 'a:b' });
  proxied(answer, 'http://example.test/');
  assert.strictEqual(answer.headers.authorization, 'Basic YTpi');
};

cases['IPv6, ports and the spelling of the host'] = async () => {
  proxied(await ask('http://[2001:db8::1]:81/x'), 'http://[2001:db8::1]:81/x');
  proxied(await ask('http://[2001:db8::1]/x'), 'http://[2001:db8::1]/x');
  proxied(await ask({ host: 'Example.test', port: 80 }), 'http://Example.test/');
  proxied(await ask({ host: 'example.test', headers: { host: 'EXAMPLE.test:80' } }), 'http://EXAMPLE.test:80/');
  proxied(await ask({ host: 'under_score.test.' }), 'http://under_score.test./');
};

// --- connections

cases['the default agent shares one connection among origins'] = async ({ proxy }) => {
  for (let i = 0; i < 5; i++) {
    await askTimes(2, { host: `${KEEPS ? 'one' : i}.test` });
  }
  assert.strictEqual(proxy.accepted, 1);
};

cases['an explicit default agent is the default agent'] = async ({ proxy }) => {
  await askTimes(5, { host: 'example.test', agent: http.globalAgent });
  assert.strictEqual(proxy.accepted, 1);
};

cases['a replaced default agent without keep-alive is one too'] = async ({ proxy }) => {
  http.globalAgent = new http.Agent();
  await askTimes(5, { host: 'example.test' });
  assert.strictEqual(proxy.accepted, 1);
};

cases['Connection: close ends at the default agent'] = async ({ proxy }) => {
  const answer = await askTimes(5, { host: 'example.test', headers: { connection: 'Close' } });
  assert.strictEqual(answer.headers.connection, 'keep-alive');
  assert.strictEqual(proxy.accepted, 1);
};

cases['Connection: close set later is kept'] = async ({ proxy }) => {
  for (let i = 0; i < 2; i++) {
    const req = http.request({ host: 'example.test' });
    req.setHeader('Connection', 'close');
    proxied(await finish(req), 'http://example.test/');
  }
  assert.strictEqual(proxy.accepted, 2);
};

cases['the default agent\'s maxSockets holds for each origin'] = async ({ proxy }) => {
  http.globalAgent = new http.Agent({ maxSockets: 2 });
  const all = [];
  for (let i = 0; i < 20; i++) {
    all.push(ask({ host: `${i % 2}.test` }));
  }
  (await Promise.all(all)).forEach((answer, i) => proxied(answer, `http://${i % 2}.test/`));
  assert.strictEqual(proxy.accepted, 4);
};

cases['agent: false has a connection of its own'] = async ({ proxy }) => {
  const answer = await askTimes(3, { host: 'example.test', agent: false });
  proxied(answer, 'http://example.test/');
  assert.strictEqual(answer.headers.connection, 'close');
  assert.strictEqual(proxy.accepted, 3);
};

cases['a named agent without keep-alive keeps nothing'] = async ({ proxy }) => {
  const answer = await askTimes(3, { host: 'example.test', agent: new http.Agent() });
  proxied(answer, 'http://example.test/');
  assert.strictEqual(answer.headers.connection, 'close');
  assert.strictEqual(proxy.accepted, 3);
};

cases['a named agent with keep-alive keeps its own, by origin'] = async ({ proxy }) => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const all = [];
  for (let i = 0; i < 12; i++) {
    all.push(ask({ host: `${i % 3}.test`, agent }));
  }
  (await Promise.all(all)).forEach((answer, i) => proxied(answer, `http://${i % 3}.test/`));
  await turn();
  assert.strictEqual(proxy.accepted, 3);
  assert.strictEqual(Object.keys(agent.freeSockets).length, 3);
  agent.destroy();
};

cases['a named agent never mixes direct and proxied connections'] = async ({ origin, proxy }) => {
  const agent = new http.Agent({ keepAlive: true });
  const target = { host: '127.0.0.1', port: origin.port, agent };
  for (let i = 0; i < 3; i++) {
    proxied(await ask(Object.assign({ path: '/' }, target)), `http://127.0.0.1:${origin.port}/`);
    await turn();
    direct(await ask(Object.assign({ headers: { host: 'other.test' } }, target)));
    await turn();
  }
  assert.deepStrictEqual([proxy.accepted, origin.accepted], [1, 1]);
  agent.destroy();
};

environment('a family asked for is the origin\'s, not the proxy\'s', { HTTP_PROXY: 'LOCALPROXY' }, async () => {
  proxied(await ask({ host: 'example.test', family: 6, agent: new http.Agent() }), 'http://example.test/');
  proxied(await ask({ host: 'example.test', family: 6 }), 'http://example.test/');
});

environment('kept connections do not keep the program running', {}, async ({ proxy }) => {
  await askTimes(2, { host: 'example.test' });
  proxy.unref();
  proxy.sockets.forEach((socket) => socket.unref()); // the case ends now, or at the tests' time limit
  return 'ends by itself';
});

// --- a program that takes the connection for its own

cases['listeners on the socket end with the request'] = async ({ proxy }) => {
  if (KEEPS) return;
  const closed = [];
  for (let i = 0; i < 30; i++) {
    const req = http.request({ host: 'example.test' });
    req.on('socket', (socket) => {
      socket.setTimeout(60000);
      socket.on('timeout', () => req.abort());
      socket.on('close', (hadError) => closed.push(hadError));
      socket.on('error', () => {});
      socket.once('connect', () => {});
      socket.setMaxListeners(8);
    });
    await finish(req);
    await turn();
    assert.strictEqual(req.socket.timeout || 0, 0);
  }
  assert.strictEqual(proxy.accepted, 1);
  assert.deepStrictEqual(closed, Array(30).fill(false));
};

cases['a request that is over cannot end the next one'] = async ({ proxy }) => {
  const over = http.request({ host: 'example.test' });
  let response;
  over.on('response', (res) => { response = res; });
  await finish(over);
  await turn();
  const next = http.request({ host: 'example.test', method: 'POST' });
  next.write('a');
  await new Promise((resolve) => next.on('socket', () => setImmediate(resolve)));
  over.abort();
  over.destroy();
  response.destroy();
  await turn();
  proxied(await finish(next, 'b'), 'http://example.test/');
  assert.strictEqual(proxy.accepted, 1);
};

cases['abort and destroy under way'] = async () => {
  for (const end of ['abort', 'destroy']) {
    for (const moment of ['at once', 'socket', 'response']) {
      const req = http.request({ host: 'example.test', method: 'POST' });
      const gone = new Promise((resolve) => req.on('error', resolve).on('abort', resolve).on('close', resolve));
      if (moment === 'at once') {
        req[end]();
      } else if (moment === 'socket') {
        req.on('socket', () => req[end]());
      } else {
        req.on('response', () => req[end]());
      }
      req.end('x');
      await gone;
    }
  }
  proxied(await ask({ host: 'example.test' }), 'http://example.test/');
};

environment('timeouts fire, and end with their request', {}, async ({ proxy }) => {
  proxy.removeAllListeners('request');
  let hold = true;
  proxy.on('request', (req, res) => hold ? req.resume() : res.end(JSON.stringify({ by: 'proxy', url: req.url })));
  for (const set of [(req) => req.setTimeout(20), null]) {
    const req = http.request(Object.assign({ host: 'example.test' }, set ? {} : { timeout: 20 }));
    if (set) set(req);
    const error = new Promise((resolve) => req.on('error', resolve));
    req.on('timeout', () => req.abort());
    req.end();
    assert.strictEqual((await error).code, 'ECONNRESET');
  }
  hold = false;
  const req = http.request({ host: 'example.test', timeout: 60000 });
  await finish(req);
  await turn();
  assert.ok(KEEPS || !req.socket.timeout);
  proxied(await ask({ host: 'example.test' }), 'http://example.test/');
});

cases['a connection that the proxy closes is replaced'] = async ({ proxy }) => {
  await askTimes(1, { host: 'example.test' });
  const kept = Array.from(proxy.sockets);
  await Promise.all(kept.map((socket) => new Promise((resolve) => {
    socket.on('close', resolve);
    socket.end();
  })));
  await turn();
  proxied(await ask({ host: 'example.test' }), 'http://example.test/');
  assert.strictEqual(proxy.accepted, 2);
};

environment('a proxy that is gone is an error of the request', {}, async ({ proxy }) => {
  proxy.close();
  await assert.rejects(ask({ host: 'example.test' }), { code: 'ECONNREFUSED' });
});

// --- what is left alone

cases['a socketPath'] = async () => {
  const path = require('path').join(require('os').tmpdir(), `carpool-preload-${process.pid}.sock`);
  const server = http.createServer((req, res) => res.end(JSON.stringify({ by: 'origin', url: req.url })));
  await new Promise((resolve) => server.listen(path, resolve));
  direct(await ask({ socketPath: path, path: '/x' }));
  direct(await ask({ path: '/x', agent: new http.Agent({ socketPath: path }) }));
  server.close();
};

cases['ways to connect of their own'] = async ({ origin }) => {
  const connect = () => net.connect(origin.port, '127.0.0.1');
  const lookup = (host, options, cb) => options && options.all ?
    cb(null, [{ address: '127.0.0.1', family: 4 }]) : cb(null, '127.0.0.1', 4);
  class Tunnel extends http.Agent {
    createConnection() { return connect(); }
  }
  class OldTunnel { // as in tunnel, agent-base and global-agent
    addRequest(req) { req.onSocket(connect()); }
  }
  const own = new http.Agent();
  own.createConnection = connect;
  const port = origin.port;
  for (const options of [
    { createConnection: connect }, { lookup, port }, { localAddress: '127.0.0.1', host: '127.0.0.1', port },
    { agent: new Tunnel() }, { agent: new OldTunnel() }, { agent: own }, { agent: new http.Agent({ lookup }), port },
    { agent: new http.Agent({ host: '127.0.0.1', port }) }, { agent: new http.Agent({ localAddress: '127.0.0.1' }), port, host: '127.0.0.1' },
  ]) {
    direct(await ask(Object.assign({ host: 'example.test', path: '/x' }, options)));
  }
};

cases['a Host that is not the address'] = async ({ origin }) => {
  const to = { host: '127.0.0.1', port: origin.port };
  direct(await ask(Object.assign({ headers: { Host: 'virtual.test' } }, to)));
  direct(await ask(Object.assign({ headers: { Host: '127.0.0.1' } }, to)));
  direct(await ask(Object.assign({ headers: [['Host', 'virtual.test']] }, to)));
};

cases['targets that a proxy does not take'] = async ({ origin }) => {
  const to = { host: '127.0.0.1', port: origin.port };
  for (const [method, path] of [['OPTIONS', '*'], ['GET', 'relative'], ['GET', '/a#b'], ['GET', 'http://example.test/']]) {
    const socket = await new Promise((resolve, reject) => {
      origin.once('clientError', (err, s) => { s.destroy(); resolve(null); });
      ask(Object.assign({ method, path }, to)).then(resolve, (err) => err.code === 'ECONNRESET' ? resolve(null) : reject(err));
    });
    assert.ok(socket === null || socket.by === 'origin', path);
  }
};

cases['CONNECT and Upgrade'] = async ({ origin }) => {
  const to = { host: '127.0.0.1', port: origin.port };
  await new Promise((resolve, reject) => {
    http.request(Object.assign({ method: 'CONNECT', path: 'example.test:443' }, to))
      .on('connect', (res, socket) => { socket.destroy(); resolve(); }).on('error', reject).end();
  });
  await new Promise((resolve, reject) => {
    http.request(Object.assign({ headers: { Connection: 'Upgrade', Upgrade: 'x' } }, to))
      .on('upgrade', (res, socket) => { socket.destroy(); resolve(); }).on('error', reject).end();
  });
  assert.deepStrictEqual(origin.seen.map((s) => s.method), ['CONNECT', 'GET']);
};

environment('https, if it is not asked for', {}, async ({ proxy }) => {
  await opensNot({ proxy });
});

environment('https, if it is not asked for clearly', { CARPOOL_PRELOAD_HTTPS: 'yes' }, async ({ proxy }) => {
  await opensNot({ proxy });
});

async function opensNot({ proxy }) {
  const tcp = net.createServer((socket) => socket.destroy());
  await new Promise((resolve) => tcp.listen(0, '127.0.0.1', resolve));
  for (let i = 0; i < 3; i++) {
    await assert.rejects(finish(https.get({ host: '127.0.0.1', port: tcp.address().port, agent: new https.Agent() })));
  }
  tcp.close();
  assert.strictEqual(proxy.accepted, 0);
}

cases['wrong arguments throw what they always did'] = async () => {
  for (const [options, code] of [
    [{ host: 'example.test', agent: 1 }, 'ERR_INVALID_ARG_TYPE'], [{ host: 'example.test', protocol: 'ftp:' }, 'ERR_INVALID_PROTOCOL'],
    [{ host: 'example.test', path: '/a b' }, 'ERR_UNESCAPED_CHARACTERS'], [{ host: 5 }, 'ERR_INVALID_ARG_TYPE'],
  ]) {
    assert.throws(() => http.request(options), { code });
  }
};

cases['agents and requests of other kinds are handed through'] = async () => {
  const requests = [];
  class Odd extends http.Agent {
    createSocket(req) { requests.push(req); }
  }
  const agent = new Odd();
  for (const [req, options] of [[{}, null], [{ getHeader: 1 }, {}], [{ getHeader() { throw new Error('no'); } }, { host: 'a' }]]) {
    try {
      agent.addRequest(req, options);
    } catch (err) {
      // What Node.js itself makes of it.
    }
  }
  const legacy = new http.ClientRequest({ host: '127.0.0.1', createConnection: () => new net.Socket() });
  agent.addRequest(legacy, 'example.test', 80);
  assert.strictEqual(requests[requests.length - 1], legacy);
};

// --- requests that are addressed to the proxy

environment('absolute-form to the proxy shares its connection', { NO_PROXY: 'localhost,127.0.0.1' }, async ({ proxy }) => {
  const to = { host: '127.0.0.1', port: proxy.port, path: 'http://example.test/a', headers: { Host: 'example.test', Connection: 'close' } };
  const answer = await askTimes(5, to);
  proxied(answer, 'http://example.test/a');
  assert.strictEqual(answer.headers.host, 'example.test');
  await askTimes(2, Object.assign({}, to, { path: 'https://example.test/b', host: 'LOCALHOST' }));
  assert.ok(proxy.accepted <= (KEEPS ? 2 : 1), `${proxy.accepted} connections`);
  assert.strictEqual(proxy.seen[6].url, 'https://example.test/b');
});

environment('a request for the proxy\'s own pages is direct', { NO_PROXY: '127.0.0.1' }, async ({ proxy }) => {
  const answer = await ask({ host: '127.0.0.1', port: proxy.port, path: '/healthz' });
  assert.strictEqual(answer.url, '/healthz');
});

// --- the environment

environment('no HTTP_PROXY', { HTTP_PROXY: '', http_proxy: '' }, stays);
environment('a proxy elsewhere', { HTTP_PROXY: 'http://proxy.test:3128' }, stays);
environment('a proxy that wants a password', { HTTP_PROXY: 'http://a:b@127.0.0.1:3128' }, stays);
environment('a proxy over TLS', { HTTP_PROXY: 'https://127.0.0.1:3128' }, stays);
environment('nonsense', { HTTP_PROXY: 'http://[' }, stays);
environment('the lower case wins', { http_proxy: 'http://PROXY', HTTP_PROXY: 'http://127.0.0.1:1' }, goes);
environment('an empty lower case does not', { http_proxy: '', HTTP_PROXY: 'http://PROXY/' }, goes);
environment('a proxy without a scheme, by name', { HTTP_PROXY: 'LOCALPROXY' }, goes);
environment('NO_PROXY, an address', { NO_PROXY: 'a.test, 127.0.0.1' }, stays);
environment('no_proxy wins', { no_proxy: '127.0.0.1', NO_PROXY: 'a.test' }, stays);
environment('NO_PROXY, address and port', { NO_PROXY: '127.0.0.1:ORIGIN' }, stays);
environment('NO_PROXY, another port', { NO_PROXY: '127.0.0.1:1,[::1]:80' }, goes);
environment('NO_PROXY, a range', { NO_PROXY: '127.0.0.0/8' }, stays);
environment('NO_PROXY, another range', { NO_PROXY: '127.0.0.2/31,::/0,127.0.0.1/x,1/2/3' }, goes);
environment('NO_PROXY, everything', { NO_PROXY: '*' }, stays);

async function stays({ origin }) {
  direct(await ask(`http://127.0.0.1:${origin.port}/`));
}

async function goes({ origin }) {
  proxied(await ask(`http://127.0.0.1:${origin.port}/`), `http://127.0.0.1:${origin.port}/`);
}

environment('NO_PROXY, names and IPv6', { NO_PROXY: 'Plain.test .dot.test *.star.test,[2001:db8::1]:81,fd00::/8' }, async ({ origin }) => {
  // None of these exist: what goes directly to anywhere ends at the origin.
  http.Agent.prototype.createConnection = (options) =>
    net.connect(options.host === 'localhost' ? options.port : origin.port, '127.0.0.1');
  const proxiedURLs = ['http://notplain.test/', 'http://plain.test.org/', 'http://[2001:db8::1]:80/', 'http://[2001:db8::2]:81/', 'http://10.0.0.1/'];
  const directURLs = ['http://plain.test/', 'http://PLAIN.test.:8080/', 'http://a.plain.test/', 'http://dot.test/', 'http://a.dot.test/',
    'http://star.test/', 'http://a.b.star.test/', 'http://[2001:db8::1]:81/', 'http://[fd12::5]/',
    'http://169.254.169.254/', 'http://[fe80::1]/', 'http://[::ffff:169.254.1.1]/', 'http://metadata.google.internal/', 'http://metadata.google.internal./',
    'http://metadata/', 'http://[fd00:ec2::254]/', 'http://[fd00:ec2::23]/', 'http://100.100.100.200/'];
  for (const url of proxiedURLs) {
    assert.strictEqual((await ask(url)).by, 'proxy', url);
  }
  for (const url of directURLs) {
    assert.strictEqual((await ask(url)).by, 'origin', url);
  }
});

environment('NODE_USE_ENV_PROXY', { NODE_USE_ENV_PROXY: '1' }, async ({ origin, proxy, script }) => {
  // It counts from the start of a process only.
  const child = spawnSync(process.execPath, ['--require=' + script, '-p',
    'Object.getOwnPropertySymbols(http.Agent.prototype).length + " " + !!http.globalAgent.options.proxyEnv'],
  { env: process.env, encoding: 'utf8' });
  assert.ok(['1 false\n', '0 true\n'].indexOf(child.stdout) >= 0, child.stdout + child.stderr);
});

cases['loaded twice, it acts once'] = async ({ script }) => {
  delete require.cache[require.resolve(script)];
  require(script);
  proxied(await ask('http://example.test/'), 'http://example.test/');
};

cases['worker threads'] = async () => {
  let Worker;
  try {
    Worker = require('worker_threads').Worker;
  } catch (err) {
    return; // Node.js 10
  }
  process.env.NODE_OPTIONS = '';
  const worker = new Worker(`require(${JSON.stringify(process.argv[2])});
    require('http').get('http://example.test/', (res) => res.on('data', (d) => require('worker_threads').parentPort.postMessage(String(d))));`,
  { eval: true });
  proxied(JSON.parse(await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject))), 'http://example.test/');
};

// --- https

secure('https goes directly until the program and the proxy have verified the origin', async ({ origin, proxy, url }) => {
  https.globalAgent = closes();
  direct(await sask(url));
  await turn();
  assert.strictEqual(proxy.accepted, 0, 'an origin that is asked once is no question');
  await opened(url);
  const u = `${url}a`;
  const answer = await sask(u, { method: 'POST', headers: { 'X-A': 'b' } }, 'body');
  proxied(answer, u);
  assert.deepStrictEqual([answer.method, answer.body, answer.headers['x-a'], answer.headers.host], ['POST', 'body', 'b', `127.0.0.1:${origin.port}`]);
  assert.strictEqual(proxy.questions, 1);
});

secure('https goes directly where the proxy cannot verify the origin', async ({ proxy, url }) => {
  https.globalAgent = closes();
  proxy.verdict = '?0';
  for (let i = 0; i < 10; i++) {
    await staysDirect(url);
  }
  assert.deepStrictEqual([proxy.questions, proxy.seen.length], [1, 0]);
});

secure('https goes directly where the proxy knows no such question', async ({ proxy, url }) => {
  https.globalAgent = closes();
  proxy.removeAllListeners('request');
  proxy.on('request', (req, res) => {
    proxy.seen.push(req.method);
    res.setHeader('Allow', 'GET');
    res.end();
  });
  await staysDirect(url);
  await staysDirect(url);
  assert.deepStrictEqual(proxy.seen, ['OPTIONS']);
});

secure('https goes directly where no proxy answers', async ({ proxy, url }) => {
  https.globalAgent = closes();
  proxy.on('connection', (socket) => socket.destroy());
  await staysDirect(url);
  await staysDirect(url);
});

secure('what the proxy refuses by a rule it is to refuse', async ({ proxy, url }) => {
  https.globalAgent = closes();
  proxy.removeAllListeners('request');
  proxy.on('request', (req, res) => {
    res.writeHead(403, { 'Connection': 'carpool', 'Proxy-Status': 'carpool; error=http_request_denied' });
    res.end('"carpool: no"');
  });
  let answer;
  for (let i = 0; i < 1000 && answer !== 'carpool: no'; i++) {
    answer = await sask(url);
    await turn();
  }
  assert.strictEqual(answer, 'carpool: no');
});

for (const [what, host, code] of [['an authority of nobody', '127.0.0.1', /SELF_SIGNED/], ['another host', '127.0.0.2', /ALTNAME_INVALID/]]) {
  secure(`C5 what Node.js refuses stays refused, whatever the proxy says: ${what}`, async ({ proxy }) => {
    const server = https.createServer({ key: fs.readFileSync(PEM), cert: fs.readFileSync(PEM) });
    await new Promise((resolve) => server.listen(0, '0.0.0.0', resolve));
    https.globalAgent = closes();
    for (let i = 0; i < 20; i++) {
      const err = await sask(`https://${host}:${server.address().port}/`).then(() => null, (e) => e);
      assert.ok(err && code.test(err.code), err && err.stack);
      await turn();
    }
    assert.strictEqual(proxy.seen.length, 0);
  }, host === '127.0.0.1' ? { NODE_EXTRA_CA_CERTS: '' } : {});
}

secure('https of the default agent shares one connection', async ({ proxy, url }) => {
  await opened(url);
  await turn();
  const before = proxy.accepted;
  for (let i = 0; i < 20; i++) {
    proxied(await sask(url, { headers: { Connection: 'close' } }), url);
    await turn();
  }
  assert.strictEqual(proxy.accepted, before);
});

secure('https of an agent without keep-alive is its own', async ({ proxy, url }) => {
  await opened(url);
  for (const agent of [false, new https.Agent(), new https.Agent({ rejectUnauthorized: true, maxSockets: 50 })]) {
    const before = proxy.accepted;
    proxied(await sask(url, { agent }), url);
    await turn();
    proxied(await sask(url, { agent }), url);
    assert.strictEqual(proxy.accepted, before + 2);
  }
});

secure('https of an agent that keeps connections stays as it is', async ({ origin, proxy, url }) => {
  await opened(url);
  const [asked, before] = [proxy.seen.length, origin.accepted];
  const agent = new https.Agent({ keepAlive: true });
  await staysDirect(url, { agent });
  assert.deepStrictEqual([proxy.seen.length, origin.accepted], [asked, before + 1]);
  agent.destroy();
});

secure('an agent never mixes direct and proxied connections of https', async ({ origin, url }) => {
  const agent = new https.Agent({ maxSockets: 1 });
  await opened(url, { agent });
  const all = [];
  for (let i = 0; i < 20; i++) { // they wait for one another
    all.push(sask(url, Object.assign({ agent }, i % 2 ? {} : { headers: { Host: `localhost:${origin.port}` } })));
  }
  (await Promise.all(all)).forEach((answer, i) => i % 2 ? proxied(answer, url) : direct(answer));
});

secure('the default agent\'s maxSockets holds for https', async ({ proxy, url }) => {
  await opened(url);
  https.globalAgent = new https.Agent({ maxSockets: 2 });
  const before = proxy.accepted;
  (await Promise.all(Array.from(Array(20), () => sask(url)))).forEach((answer) => proxied(answer, url));
  assert.ok(proxy.accepted <= before + 2, `${proxy.accepted - before} connections`);
});

secure('every overload of https.request and get', async ({ url }) => {
  await opened(url);
  const o = partsOf(url);
  const asked = [https.request(url), https.request(new URL(url)), https.request(o), https.request(url, {}), https.request(url, () => {}),
    https.get(url), https.get(new URL(url), {}, () => {}), https.get(Object.assign({ protocol: 'https:' }, o))];
  (await Promise.all(asked.map((req) => finish(req)))).forEach((answer) => proxied(answer, url));
});

secure('named imports of ES modules are covered for https', async ({ url }) => {
  if (+process.versions.node.split('.')[0] < 14) return;
  await opened(url);
  const { get } = await (new Function('return import("https")'))();
  proxied(await finish(get(url)), url);
});

secure('TLS that is not left to its defaults', async ({ proxy, url }) => {
  await opened(url);
  const asked = proxy.seen.length;
  const pem = fs.readFileSync(PEM);
  const agent = closes();
  const changed = closes();
  changed.options.ca = pem;
  const options = [
    { ca: pem }, { ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256:TLS_AES_128_GCM_SHA256' }, { checkServerIdentity: () => undefined },
    { rejectUnauthorized: false }, { servername: 'localhost' }, { ALPNProtocols: ['http/1.1'] }, { minVersion: 'TLSv1.2' },
    { cert: pem, key: pem }, { secureContext: tls.createSecureContext({ ca: pem }) }, { ecdhCurve: 'P-256' },
    { secureOptions: 4 }, { agent: new https.Agent({ ca: pem }) }, { agent: new https.Agent({ rejectUnauthorized: false }) },
    { agent: new https.Agent({ checkServerIdentity: () => undefined }) }, { agent: changed },
  ];
  for (const o of options) {
    await staysDirect(url, o);
  }
  assert.strictEqual(proxy.seen.length, asked);
  for (const o of [{ agent }, { rejectUnauthorized: true }, { servername: '127.0.0.1' }, { ca: undefined, checkServerIdentity: undefined }]) {
    proxied(await sask(url, o), url);
  }
});

secure('ways to connect of their own, in TLS', async ({ origin, proxy, url }) => {
  await opened(url);
  const asked = proxy.seen.length;
  const connect = () => tls.connect({ host: '127.0.0.1', port: origin.port });
  class Tunnel extends https.Agent {
    createConnection() { return connect(); }
  }
  class Named extends https.Agent {
    getName(options) { return 'x' + super.getName(options); }
  }
  for (const o of [{ createConnection: connect }, { agent: new Tunnel() }, { agent: new Named() }, { localAddress: '127.0.0.1' },
    { headers: { Host: 'localhost:' + origin.port } }]) {
    await staysDirect(url, o);
  }
  assert.strictEqual(proxy.seen.length, asked);
});

secure('Upgrade over https', async ({ origin, proxy, url }) => {
  await opened(url);
  const asked = proxy.seen.length;
  await new Promise((resolve, reject) => {
    https.request(Object.assign({ headers: { Connection: 'Upgrade', Upgrade: 'websocket' } }, partsOf(url)))
      .on('upgrade', (res, socket) => { socket.destroy(); resolve(); }).on('error', reject).end();
  });
  assert.strictEqual(proxy.seen.length, asked);
});

secure('a default of TLS that the program changes', async ({ proxy, url }) => {
  await opened(url);
  const { connect, checkServerIdentity, createSecureContext, DEFAULT_MIN_VERSION } = tls;
  const changes = [
    [() => { tls.connect = function () { return connect.apply(this, arguments); }; }, () => { tls.connect = connect; }],
    [() => { tls.checkServerIdentity = () => undefined; }, () => { tls.checkServerIdentity = checkServerIdentity; }],
    [() => { tls.createSecureContext = (o) => createSecureContext(o); }, () => { tls.createSecureContext = createSecureContext; }],
    [() => { process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'; }, () => { delete process.env.NODE_TLS_REJECT_UNAUTHORIZED; }],
    [() => { tls.DEFAULT_MIN_VERSION = 'TLSv1.1'; }, () => { tls.DEFAULT_MIN_VERSION = DEFAULT_MIN_VERSION; }],
  ];
  for (const [change, restore] of changes) {
    if (change === changes[4][0] && !tls.DEFAULT_MIN_VERSION) continue; // Node.js 10
    const asked = proxy.seen.length;
    change();
    await staysDirect(url);
    assert.strictEqual(proxy.seen.length, asked);
    restore();
    assert.strictEqual((await sask(url)).by, 'proxy', String(change));
  }
  if (tls.setDefaultCACertificates) {
    tls.setDefaultCACertificates([fs.readFileSync(PEM)]);
    await staysDirect(url);
  }
});

secure('a program that looks at the certificate', async ({ proxy, url }) => {
  https.globalAgent = closes();
  for (let i = 0; i < 20; i++) {
    const req = https.request(url);
    req.on('socket', (socket) => socket.on('secureConnect', () => socket.getPeerCertificate()));
    direct(await finish(req));
    await turn();
  }
  assert.strictEqual(proxy.seen.length, 0);
});

secure('a program that looks at the certificate later on', async ({ proxy, url }) => {
  await opened(url);
  const asked = proxy.seen.length;
  const req = https.request(url);
  req.on('socket', (socket) => assert.deepStrictEqual(socket.getPeerCertificate(), {}));
  await finish(req);
  await staysDirect(url);
  assert.strictEqual(proxy.seen.length, asked + 1);
});

secure('the connection looks as one of TLS', async ({ url }) => {
  await opened(url);
  for (const agent of [false, undefined]) {
    const events = [];
    const req = https.request(Object.assign({ agent, method: 'POST', headers: { 'Content-Length': 4 } }, partsOf(url)));
    req.on('socket', (socket) => {
      assert.deepStrictEqual([socket.encrypted, socket.authorizationError, socket.getProtocol(), socket.getCipher(), socket.isSessionReused()],
        [true, null, null, {}, false]);
      if (!socket.connecting) { // kept
        assert.deepStrictEqual([socket.authorized, socket.secureConnecting], [true, false]);
        return;
      }
      assert.strictEqual(socket.authorized, false);
      for (const event of ['lookup', 'connect', 'secureConnect']) {
        socket.on(event, () => events.push(event, socket.authorized));
      }
      socket.on('secureConnect', () => req.end('late'));
    });
    if (agent === false) {
      const answer = await new Promise((resolve, reject) => {
        req.on('error', reject);
        req.on('response', (res) => res.on('data', (data) => resolve(JSON.parse(data))));
      });
      proxied(answer, url);
      assert.strictEqual(answer.body, 'late');
      assert.deepStrictEqual(events, ['lookup', false, 'connect', false, 'secureConnect', true]);
    } else {
      proxied(await finish(req, 'late'), url);
    }
  }
});

const told = (error, details) => ({ headers: {
  'Connection': 'carpool', 'Proxy-Status': `carpool; error=${error}${details ? `; details="${details}"` : ''}`,
} });

secure('what is wrong is the error that it was', async ({ origin, proxy, url }) => {
  await opened(url);
  for (const [error, details, code, syscall] of [
    ['connection_refused', '', 'ECONNREFUSED', 'connect'], ['connection_timeout', '', 'ETIMEDOUT', 'connect'],
    ['destination_ip_unroutable', '', 'EHOSTUNREACH', 'connect'], ['dns_error', '', 'ENOTFOUND', 'getaddrinfo'],
    ['dns_error', 'unresolved', 'EAI_AGAIN', 'getaddrinfo'], ['dns_timeout', '', 'EAI_AGAIN', 'getaddrinfo'],
    ['connection_terminated', '', 'ECONNRESET', undefined], ['proxy_internal_response', '', 'ECONNRESET', undefined],
    ['http_protocol_error', '', 'HPE_INVALID_CONSTANT', undefined], ['of_the_future', 'so', 'ECONNRESET', undefined],
  ]) {
    proxy.failure = told(error, details);
    for (const agent of [undefined, false]) {
      const events = [];
      const req = https.request(Object.assign({ agent }, partsOf(url)));
      req.on('response', () => events.push('response'));
      const closed = new Promise((resolve) => req.on('close', resolve));
      const err = await new Promise((resolve) => req.on('error', resolve).end());
      assert.deepStrictEqual([err.code, err.syscall, err.hostname, events], [code, syscall, '127.0.0.1', []]);
      assert.ok(err instanceof Error && err.proxyStatus);
      await closed;
    }
    proxy.failure = null;
    proxied(await sask(url), url);
  }
  assert.strictEqual(proxy.questions, 1);
});

for (const [details, code] of [['expired', 'CERT_HAS_EXPIRED'], ['not_yet_valid', 'CERT_NOT_YET_VALID'], ['wrong_name', 'ERR_TLS_CERT_ALTNAME_INVALID'],
  ['self_signed', 'DEPTH_ZERO_SELF_SIGNED_CERT'], ['unknown_authority', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'], ['', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE']]) {
  secure(`C5 a certificate that stops to hold: ${details}`, async ({ proxy, url }) => {
    await opened(url);
    proxy.failure = told('tls_certificate_error', details);
    await assert.rejects(sask(url), { code });
    const asked = proxy.seen.length;
    await staysDirect(url); // where the program's own verdict counts
    assert.deepStrictEqual([proxy.questions, proxy.seen.length], [1, asked]);
  });
}

secure('an error while the request is still being sent', async ({ proxy, url }) => {
  await opened(url);
  proxy.failure = told('connection_refused');
  const req = https.request(Object.assign({ method: 'POST' }, partsOf(url)));
  let errors = 0;
  const closed = new Promise((resolve) => req.on('close', resolve));
  req.on('error', () => errors++);
  req.write('a');
  await closed;
  assert.strictEqual(errors, 1);
  proxy.failure = null;
  proxied(await sask(url), url);
});

secure('an upstream\'s own answer stays an answer', async ({ proxy, url }) => {
  await opened(url);
  for (const failure of [{ headers: { 'Proxy-Status': 'carpool; error=connection_refused' } }, { headers: { 'Connection': 'carpool' } },
    { status: 403, headers: told('http_request_denied').headers }, { status: 508, headers: told('proxy_loop_detected').headers }]) {
    proxy.failure = failure;
    const res = await new Promise((resolve, reject) => https.get(url, resolve).on('error', reject));
    assert.strictEqual(res.statusCode, failure.status || 502);
    res.resume();
    await new Promise((resolve) => res.on('end', resolve));
  }
});

secure('a proxy that goes away costs one request', async ({ proxy, url }) => {
  await opened(url);
  proxy.close();
  await turn();
  await sask(url, { agent: false }).then(() => assert.fail('how?'), (err) => assert.strictEqual(err.code, 'ECONNREFUSED'));
  direct(await sask(url)); // its port may be another's soon
});

secure('what wraps https to see what passes', async ({ proxy, url }) => {
  const { request, get } = https;
  let seen = 0;
  https.request = function () { seen++; return request.apply(this, arguments); };
  https.get = function () { const req = https.request.apply(this, arguments); req.end(); return req; };
  const emit = http.ClientRequest.prototype.emit;
  http.ClientRequest.prototype.emit = function () { return emit.apply(this, arguments); };
  const addRequest = http.Agent.prototype.addRequest;
  http.Agent.prototype.addRequest = function () { return addRequest.apply(this, arguments); };
  await opened(url);
  proxied(await finish(https.get(url)), url);
  assert.ok(seen > 2);
  https.get = get;
});

secure('request does not tunnel', async ({ proxy, url }) => {
  await opened(url);
  const agent = { proxyOptions: { host: '127.0.0.1', port: proxy.port }, addRequest() { throw new Error('it does'); } };
  proxied(await sask(url, { tunnel: true, agent }), url);
  agent.proxyOptions.port = 1; // another proxy
  assert.throws(() => https.request(Object.assign({ tunnel: true, agent }, partsOf(url))), /it does/);
});

secure('https in a worker thread', async ({ script, url }) => {
  if (+process.versions.node.split('.')[0] < 12) return;
  const { Worker } = require('worker_threads');
  process.env.NODE_OPTIONS = '';
  const worker = new Worker(`require(${JSON.stringify(script)});
    const { parentPort } = require('worker_threads');
    const https = require('https');
    const ask = () => https.get(${JSON.stringify(url)}, { agent: new https.Agent() }, (res) => res.on('data', (d) => {
      if (JSON.parse(d).by === 'proxy') { parentPort.postMessage(String(d)); } else { setImmediate(ask); }
    }));
    ask();`, { eval: true });
  proxied(JSON.parse(await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject))), url);
});

environment('a redirect to https by a library that addresses the proxy itself', { NO_PROXY: '127.0.0.1' }, async ({ proxy }) => {
  const to = { protocol: 'https:', host: '127.0.0.1', port: proxy.port, path: 'https://example.test/b', headers: { host: 'example.test' } };
  const answer = await finish(https.request(to)); // as axios 0.21 does
  proxied(answer, 'https://example.test/b');
  assert.strictEqual(answer.headers.host, 'example.test');
  await assert.rejects(finish(https.request(Object.assign({ rejectUnauthorized: false }, to))), /EPROTO|SSL|wrong version/i);
});

// --- what a program sees of http

environment('answers are answers, unless errors are asked for', {}, async ({ proxy }) => {
  proxy.failure = told('connection_refused');
  const res = await new Promise((resolve, reject) => http.get('http://example.test/', resolve).on('error', reject));
  assert.strictEqual(res.statusCode, 502);
});

environment('errors that are asked for', { CARPOOL_PRELOAD_ERRORS: 'true' }, async ({ proxy }) => {
  for (const agent of [undefined, false, new http.Agent({ keepAlive: true })]) {
    proxy.failure = told('dns_error');
    await assert.rejects(ask({ host: 'example.test', agent }), { code: 'ENOTFOUND', syscall: 'getaddrinfo', hostname: 'example.test' });
    proxy.failure = null;
    proxied(await ask({ host: 'example.test', agent }), 'http://example.test/');
  }
});

cases['a response has its socket to the end'] = async () => {
  if (KEEPS) return;
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve, reject) => http.get('http://example.test/', (res) => {
      const { socket } = res;
      res.on('end', () => {
        res.socket === socket && res.connection === socket ? resolve() : reject(new Error('it has none'));
        res.destroy();
      });
      res.resume();
    }));
    await turn();
  }
  proxied(await ask({ host: 'example.test' }), 'http://example.test/');
};

cases['a look-up is seen'] = async () => {
  for (const agent of [undefined, false, new http.Agent()]) {
    const seen = [];
    const req = http.request({ host: 'lookup.test', agent });
    let isNew;
    req.on('socket', (socket) => {
      isNew = socket.connecting;
      socket.on('lookup', (err, address) => seen.push(err, address));
    });
    await finish(req);
    assert.deepStrictEqual(seen, isNew ? [null, '127.0.0.1'] : []);
    await turn();
  }
};

// load sets the environment and loads the script, as Node.js does at its start.
function load(script, env, proxy, origin) {
  for (const spelling of ['HTTP_PROXY', 'http_proxy', 'NO_PROXY', 'no_proxy']) {
    delete process.env[spelling];
  }
  env = Object.assign({ HTTP_PROXY: 'http://PROXY' }, env);
  for (const variable of Object.keys(env)) {
    process.env[variable] = env[variable].replace('LOCALPROXY', 'localhost:' + proxy.port)
      .replace('PROXY', '127.0.0.1:' + proxy.port).replace('ORIGIN', origin.port);
  }
  require(script);
}

async function runOne(script, name) {
  const [proxy, origin] = [await listen('proxy'), await listen('origin')];
  load(script, cases[name].env, proxy, origin);
  if (await cases[name]({ proxy, origin, script }) !== 'ends by itself') {
    process.exit(0);
  }
  origin.close();
}

// reset takes a server back to where it was before a case.
async function reset(server) {
  await Promise.all(Array.from(server.sockets, (socket) => new Promise((resolve) => socket.on('close', resolve).end())));
  await turn();
  server.accepted = 0;
  server.seen = [];
}

async function runShared(script, report) {
  const [proxy, origin] = [await listen('proxy'), await listen('origin')];
  const { globalAgent } = http;
  load(script, {}, proxy, origin);
  for (const name of Object.keys(cases).filter((n) => !cases[n].env)) {
    await cases[name]({ proxy, origin, script }).then(() => report(name, null), (err) => report(name, err.stack || err));
    http.globalAgent = globalAgent;
    await reset(proxy);
    await reset(origin);
  }
  proxy.close();
  origin.close();
}

function runApart(script, report) {
  return Promise.all(Object.keys(cases).filter((n) => cases[n].env).map((name) => new Promise((resolve) => {
    const env = Object.assign({}, process.env, { NODE_EXTRA_CA_CERTS: cases[name].env.NODE_EXTRA_CA_CERTS || '' }); // read at the start
    execFile(process.execPath, [__filename, script, name], { timeout: 60000, env }, (err, stdout, stderr) => {
      report(name, err && (stderr || String(err)));
      resolve();
    });
  })));
}

async function main(script, name) {
  if (name) {
    return runOne(script, name);
  }
  const report = (name, error) => {
    console.log(JSON.stringify({ name, error: error && String(error) }));
    process.exitCode = error ? 1 : process.exitCode;
  };
  await runShared(script, report);
  await runApart(script, report);
}

main(...process.argv.slice(2)).catch((err) => {
  console.error(err.stack || err);
  process.exit(1);
});
