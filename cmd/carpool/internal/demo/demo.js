'use strict';
// The Node program of `carpool demo --node`. It takes one argument, a JSON object, and
// prints one line, another. Written for Node 10 and later.

var http = require('http');
var https = require('https');

var options = JSON.parse(process.argv[2]);
var axios = require(options.axios);

// What a program gets that never heard of keep-alive: Node's default before version 19.
http.globalAgent = new http.Agent({ keepAlive: false });
https.globalAgent = new https.Agent({ keepAlive: false });

var config = { timeout: options.timeoutMillis };
if (options.keepAlive) {
  config.httpAgent = new http.Agent({ keepAlive: true });
  config.httpsAgent = new https.Agent({ keepAlive: true });
}

var latencies = [];
var failed = 0;
var firstFailure = '';
var next = 0;

function micros(since) {
  var d = process.hrtime(since);
  return Math.round(d[0] * 1e6 + d[1] / 1e3);
}

function fail(reason) {
  failed++;
  firstFailure = firstFailure || String(reason);
}

function explain(err) {
  var body = err && err.response ? ': ' + JSON.stringify(err.response.data).slice(0, 200) : '';
  return ((err && (err.message || err.code)) || String(err)) + body;
}

function worker() {
  if (next >= options.requests) {
    return Promise.resolve();
  }
  var tag = options.run + '-' + (++next);
  var asked = process.hrtime();
  return axios.get(options.url + tag, config).then(function (response) {
    if (!response.data || response.data.tag !== tag) {
      fail('answer to another request: asked for ' + tag + ', got ' + JSON.stringify(response.data));
      return;
    }
    latencies.push(micros(asked));
  }).catch(function (err) {
    fail(explain(err));
  }).then(worker);
}

var began = process.hrtime();
var workers = [];
for (var i = 0; i < options.concurrency; i++) {
  workers.push(worker());
}
Promise.all(workers).then(function () {
  process.stdout.write(JSON.stringify({
    tookMicros: micros(began),
    latenciesMicros: latencies,
    failed: failed,
    firstFailure: firstFailure
  }) + '\n', function () {
    process.exit(0);
  });
});
