// The Node.js upstream: the server half of what ../doc.go describes, with a
// default http.Server, so one that closes idle connections after five seconds.
// Prints its port in JSON, and what it saw when its standard input ends.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const download = fs.readFileSync(process.argv[2]);
const chunkSizes = process.argv[3].split(',').map(Number);
const seen = { connections: 0, requests: 0, uploads: [] };

async function sendDownload(response) {
  for (let sent = 0, i = 0; sent < download.length; i++) {
    const chunk = download.subarray(sent, sent + chunkSizes[i % chunkSizes.length]);
    sent += chunk.length;
    if (!response.write(chunk)) {
      await new Promise((resolve) => response.once('drain', resolve));
    }
  }
  response.end();
}

async function answer(request, response) {
  seen.requests++;
  const url = new URL(request.url, 'http://upstream');
  switch (url.pathname) {
    case '/echo':
      return response.end(`${url.searchParams.get('tag')} ${url.searchParams.get('n')}`);
    case '/upload': {
      const hash = crypto.createHash('sha256');
      for await (const chunk of request) hash.update(chunk);
      seen.uploads.push(hash.digest('hex'));
      return response.end(seen.uploads[seen.uploads.length - 1]);
    }
    case '/download':
      return sendDownload(response);
    default:
      response.statusCode = 404;
      return response.end();
  }
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((err) => response.destroy(err));
});
server.on('connection', () => seen.connections++);
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.on('end', () => {
  console.log(JSON.stringify(seen));
  process.exit();
});
process.stdin.resume();
