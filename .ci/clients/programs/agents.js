// Asks URL three times by way of an agent that another proxy has a part in, or
// that has connections of its own, and exits 0 if each answer was TEXT:
//
//	agents.js AGENT OTHER_PROXY_PORT URL TEXT
'use strict';
const http = require('http');

const [name, port, url, text] = process.argv.slice(2);
const other = `http://127.0.0.1:${port}`;

const agents = {
  'agentkeepalive': () => new (require('agentkeepalive'))(),
  'global-agent': () => {
    process.env.GLOBAL_AGENT_HTTP_PROXY = other;
    require('global-agent').bootstrap();
    return undefined; // it is the default agent now
  },
  'hpagent': () => new (require('hpagent').HttpProxyAgent)({ proxy: other, keepAlive: true }),
  'http-proxy-agent': () => require('http-proxy-agent')(other),
  'http-proxy-agent-7': () => new (require('http-proxy-agent-7').HttpProxyAgent)(other),
  'tunnel': () => require('tunnel').httpOverHttp({ proxy: { host: '127.0.0.1', port } }),
};

const agent = agents[name]();

function ask(left) {
  http.get(url, { agent }, (response) => {
    let body = '';
    response.on('data', (chunk) => { body += chunk; });
    response.on('end', () => {
      if (body !== text) {
        console.error(`status ${response.statusCode}: ${body}`);
        process.exit(1);
      }
      if (left === 1) {
        process.exit(0);
      }
      ask(left - 1);
    });
  });
}

ask(3);
