// carpool's script for Node.js 10 to 26: NODE_OPTIONS=--require=/carpool/preload.js
//
// Node's http module knows no HTTP_PROXY. With this script what a program asks
// of it, by any library, goes through the proxy beside it, on connections that
// stay open. What the script does not understand it leaves alone, and it never
// throws: without it the request would have gone out, and so it does with it.
//
// How: every request with an agent passes Agent.prototype.addRequest, whatever
// overload of http.request, http.get or ClientRequest made it. There the head
// is not written yet, so a request can still be sent to the proxy, with its
// target in absolute-form (RFC 9112 section 3.2.2).
//
//   - Requests of the default agent share the connections of one agent that is
//     kept here, unless the default agent keeps connections by itself (Node.js
//     19 and later). A "Connection: close" among their options would reach the
//     proxy and no further, so it is not sent. Listeners that the program puts
//     on a connection end with its request, as the connection did.
//   - An agent that the program names, agent: false included, stays in charge:
//     its limits, its timeouts, and whether it keeps connections. Only where
//     they lead is changed.
//   - Requests that a library addresses to the proxy by itself (axios, request
//     and needle do) are left as they are but for their connection.
//
// A connection that the proxy closes is forgotten. A request that is caught by
// that fails with ECONNRESET, as with any agent that keeps connections: nothing
// is sent twice.
//
// It leaves alone: all but http:, so https, http2 and fetch; agents with a way
// of their own to connect, other proxies' among them; requests with socketPath,
// createConnection, lookup, localAddress or localPort; CONNECT and Upgrade; a
// Host that is not the address called, which a proxy cannot be told apart; and
// what NO_PROXY or the proxy itself excludes. It does nothing unless HTTP_PROXY
// is a proxy on loopback, or where Node.js reads HTTP_PROXY by itself
// (NODE_USE_ENV_PROXY). The environment is read once, at the start.
'use strict';

(function () {
  // What carpool does not connect to, in the syntax of NO_PROXY: link-local
  // addresses and the metadata services of clouds, as package policy has them.
  const REFUSED = '169.254.0.0/16,fe80::/10,100.100.100.200,fd00:100::100:200,fd00:ec2::/32,168.63.129.16,' +
    'fd20:ce::254,fd00:a9fe:a9fe::1,192.0.0.192,fd00:c1::a9fe:a9fe,fd00:42::42,' +
    'metadata.google.internal,metadata.google.internal.,metadata,metadata.tencentyun.com';
  const MAX_VERDICTS = 1000; // that are remembered
  const NONE = Object.freeze([]);

  try {
    const env = process.env;
    const proxy = parseProxy(env.http_proxy || env.HTTP_PROXY);
    if (proxy) {
      install(proxy, env.no_proxy || env.NO_PROXY || '', require('http'), require('net'));
    }
  } catch (err) {
    // The program is to start as it would without this script.
  }

  function install(proxy, noProxy, http, net) {
    const Agent = http.Agent;
    const loaded = Symbol.for('carpool.preload');
    const firstDefault = http.globalAgent;
    if (Agent.prototype[loaded] || firstDefault.options.proxyEnv) {
      return;
    }
    const exempt = matcher(net, noProxy + ',' + REFUSED);
    const pool = newPool(net, Agent, proxy);
    const getName = Agent.prototype.getName;
    const addRequest = Agent.prototype.addRequest;
    Object.defineProperty(Agent.prototype, loaded, { value: true });

    // Connections to the proxy are told apart from direct ones, and by origin,
    // as the agent's limits are.
    Agent.prototype.getName = function (options) {
      const name = getName.apply(this, arguments);
      return options && options.carpoolOrigin ? name + ':' + options.carpoolOrigin : name;
    };

    Agent.prototype.addRequest = function (req, options) {
      let plan = null;
      try {
        plan = planFor(this, req, options);
        if (plan && !prepare(req, plan)) {
          plan = null;
        }
      } catch (err) {
        plan = null;
      }
      return plan ? addRequest.call(plan.agent, req, plan.options) : addRequest.apply(this, arguments);
    };

    // planFor returns how a request is to go to the proxy, or null if it is
    // left alone:
    //   origin   what is put before its path, "" if it has one
    //   shared   whether it may share a connection whatever its headers say
    //   agent, options   what it is given to
    function planFor(agent, req, options) {
      if (!isPlain(agent) || !isOrdinary(req, options)) {
        return null;
      }
      const isDefault = agent === http.globalAgent || agent === firstDefault;
      const absolute = /^https?:\/\//i.test(req.path);
      if (absolute && !(isDefault && isProxy(options))) {
        return null;
      }
      const origin = absolute ? '' : originOf(net, req, options);
      if (origin === null || origin && exempt(options.host, +options.port)) {
        return null;
      }
      if (!isDefault || agent.keepAlive) {
        const changed = origin ? redirected(options, origin) : options;
        return { origin: origin, shared: isDefault, agent: agent, options: changed };
      }
      pool.maxSockets = agent.maxSockets;
      pool.maxTotalSockets = agent.maxTotalSockets;
      // Without limits there is no reason to keep origins apart.
      const limited = isFinite(agent.maxSockets);
      return { origin: origin, shared: true, agent: pool, options: {
        host: proxy.host, port: proxy.port, servername: '', carpoolOrigin: limited ? origin || 'proxy' : '',
      } };
    }

    // isPlain reports whether an agent connects as Node's own do.
    function isPlain(agent) {
      const plain = Agent.prototype;
      const o = agent.options;
      return agent.protocol === 'http:' && agent.createConnection === plain.createConnection &&
        agent.createSocket === plain.createSocket && agent.getName === plain.getName &&
        !o.proxyEnv && !o.host && !o.port && connectsItself(o);
    }

    // isOrdinary reports whether a request can be sent by way of a proxy. The
    // target of CONNECT is neither a path nor absolute.
    function isOrdinary(req, options) {
      return typeof options === 'object' && (options.protocol || 'http:') === 'http:' && connectsItself(options) &&
        !field(req, 'upgrade') && typeof req.path === 'string' && /^(\/|https?:\/\/)[^#]*$/i.test(req.path) &&
        typeof req._implicitHeader === 'function';
    }

    function isProxy(options) {
      const host = String(options.host).toLowerCase();
      return +options.port === proxy.port && (host === proxy.host || parseProxy('http://' + bracketed(host)) !== null);
    }

    function redirected(options, origin) {
      const copy = Object.assign({}, options, {
        host: proxy.host, port: proxy.port, servername: '', carpoolOrigin: origin,
      });
      delete copy.family; // of the origin's address
      return copy;
    }
  }

  // newPool returns the agent that takes the place of a default agent without
  // keep-alive. A program that counts on that default may treat a connection as
  // its own for good, so each request leaves it here as it was when new.
  function newPool(net, Agent, proxy) {
    const pool = new Agent({ keepAlive: true });
    pool.createConnection = function () {
      const socket = net.createConnection({ host: proxy.host, port: proxy.port });
      socket.setNoDelay(true);
      return socket;
    };
    pool.createSocket = function (req, options, cb) {
      Agent.prototype.createSocket.call(this, req, options, function (err, socket) {
        if (socket) {
          socket.carpoolListeners = new Map(socket.eventNames().map(function (event) {
            return [event, socket.listeners(event)];
          }));
        }
        cb(err, socket);
      });
    };
    pool.prependListener('free', function (socket) { // before another request can get it
      try {
        release(socket);
      } catch (err) {
        socket.destroy(); // so none gets it
      }
    });
    return pool;
  }

  // release parts a connection from the request that is over.
  function release(socket) {
    const req = socket._httpMessage;
    if (req && req.res && !req.destroyed) { // Node.js 10 and 12, where it could still end what is another's by then
      req.abort = req.destroy = req.res.destroy = function () { return this; };
    }
    if (socket.timeout) {
      socket.setTimeout(0);
    }
    const own = socket.carpoolListeners;
    for (const event of socket.eventNames()) {
      const kept = own.get(event) || NONE;
      if (socket.listenerCount(event) !== kept.length) {
        dropListeners(socket, event, kept);
      }
    }
  }

  // dropListeners takes from a connection what a program listens with.
  function dropListeners(socket, event, kept) {
    for (const listener of socket.listeners(event)) {
      if (kept.indexOf(listener) >= 0 || listener.name === 'freeSocketErrorListener') {
        continue; // the socket's or the agent's, or what Node.js 10 has put there meanwhile
      }
      socket.removeListener(event, listener);
      if (event === 'close') {
        tellClosed(socket, listener);
      }
    }
  }

  // tellClosed calls a program's listener for the end of the connection, which
  // would have ended with its request.
  function tellClosed(socket, listener) {
    try {
      listener.call(socket, false);
    } catch (err) {
      process.nextTick(function () { throw err; });
    }
  }

  // connectsItself reports whether nothing in an agent's or a request's options
  // says how to connect, other than where to.
  function connectsItself(o) {
    return !(o.socketPath || o.createConnection || o.lookup || o.localAddress || o.localPort);
  }

  // prepare changes a request as planned. It does so wholly or not at all.
  function prepare(req, plan) {
    if (req._header) { // Expect, or headers given as an array
      return plan.origin === '' || rewriteHead(req, plan.origin);
    }
    if (plan.origin) {
      req.carpoolOrigin = plan.origin;
      req._implicitHeader = absoluteHeader;
    }
    if (!plan.shared) {
      return true;
    }
    req._last = false;
    req.shouldKeepAlive = true;
    const connection = req.getHeader('connection');
    if (connection !== undefined && String(connection).trim().toLowerCase() === 'close') {
      req.setHeader('Connection', 'keep-alive');
    }
    return true;
  }

  // absoluteHeader is the _implicitHeader of a request to the proxy. The
  // program goes on to see the path it gave.
  function absoluteHeader() {
    const path = this.path;
    if (path.charAt(0) === '/') {
      this.path = this.carpoolOrigin + path;
    }
    try {
      return Object.getPrototypeOf(this)._implicitHeader.call(this);
    } finally {
      this.path = path;
    }
  }

  // rewriteHead changes a head that is written but not sent.
  function rewriteHead(req, origin) {
    const line = req.method + ' ' + req.path + ' ';
    const head = req._header;
    if (head.lastIndexOf(line, 0) !== 0) {
      return false;
    }
    const changed = req.method + ' ' + origin + head.slice(req.method.length + 1);
    if (req._headerSent) { // so it is in the queue for the socket
      const queue = req.outputData || req.output; // Node.js 10 has the latter, of strings
      const first = queue && queue.length === 1 ? queue[0] : null;
      if (first === head) {
        queue[0] = changed;
      } else if (first && first.data === head) {
        first.data = changed;
      } else {
        return false;
      }
    }
    req._header = changed;
    return true;
  }

  // field returns the value of a request's header, "" if it has none.
  function field(req, name) {
    if (!req._header) {
      const value = req.getHeader(name);
      return value === undefined ? '' : String(value);
    }
    const found = new RegExp('\r\n' + name + ': *([^\r]*)', 'i').exec(req._header);
    return found ? found[1] : '';
  }

  // originOf returns http://host[:port] as the request's Host has it, or null
  // if the proxy would take it for another or for none.
  function originOf(net, req, options) {
    const host = String(options.host).toLowerCase();
    const authority = bracketed(host);
    const port = +options.port;
    const written = field(req, 'host');
    const named = written.toLowerCase();
    if (named !== authority + ':' + port && !(port === 80 && named === authority)) {
      return null;
    }
    if (authority.charAt(0) === '[') {
      return net.isIPv6(authority.slice(1, -1)) && host.indexOf('%') < 0 ? 'http://' + written : null;
    }
    const last = host.replace(/\.$/, '').split('.').pop();
    const numeric = /^(\d+|0x[0-9a-f]*)$/.test(last); // an address, or a spelling of one that only some read
    const valid = numeric ? net.isIPv4(host) : /^([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?$/.test(host);
    return valid ? 'http://' + written : null;
  }

  function bracketed(host) {
    return host.indexOf(':') >= 0 && host.charAt(0) !== '[' ? '[' + host + ']' : host;
  }

  // parseProxy returns a proxy's address if it is on loopback and wants no
  // password, else null.
  function parseProxy(url) {
    const m = /^(?:http:\/\/)?(localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::(\d{1,5}))?\/?$/i.exec((url || '').trim());
    return m && { host: m[1].toLowerCase().replace(/[[\]]/g, ''), port: +(m[2] || 80) };
  }

  // matcher returns a function that reports whether NO_PROXY exempts a host and
  // port. Entries are names, which stand for what is below them too, with or
  // without "." or "*." in front, addresses, ranges in CIDR notation, each
  // with or without a port, and "*" for all.
  function matcher(net, list) {
    const entries = list.toLowerCase().split(/[\s,]+/).filter(Boolean).map(function (text) {
      const m = /^(.*?[^:]|\[.*\]):(\d+)$/.exec(text);
      const ported = m && (net.isIPv6(text) ? null : m);
      const host = (ported ? ported[1] : text).replace(/^\[|\]$/g, '').replace(/^\*?\./, '').replace(/\.$/, '');
      return { host: host, port: ported ? +ported[2] : 0, range: parseRange(net, host) };
    });
    const verdicts = new Map();
    return function (rawHost, port) {
      const key = rawHost + ' ' + port;
      let verdict = verdicts.get(key);
      if (verdict === undefined) {
        const host = String(rawHost).toLowerCase().replace(/^\[|\]$/g, '').replace(/\.$/, '');
        const bits = addressBits(net, host);
        verdict = entries.some(function (e) {
          return (e.port === 0 || e.port === port) && (e.host === '*' || e.host === host ||
            (bits === null ? host.endsWith('.' + e.host) : e.range !== null && inRange(bits, e.range)));
        });
        if (verdicts.size >= MAX_VERDICTS) {
          verdicts.clear();
        }
        verdicts.set(key, verdict);
      }
      return verdict;
    };
  }

  // parseRange returns the bits that the addresses of a range begin with, null
  // if the text is no range. An address is a range of one.
  function parseRange(net, text) {
    const parts = text.split('/');
    const bits = addressBits(net, parts[0]);
    const length = parts.length > 1 ? +parts[1] : bits && bits.length;
    if (bits === null || parts.length > 2 || !(length >= 0 && length <= bits.length)) {
      return null;
    }
    return { family: bits.length, prefix: bits.slice(0, length) };
  }

  function inRange(bits, range) {
    return bits.length === range.family && bits.startsWith(range.prefix);
  }

  // addressBits returns an address as 32 or 128 digits, null if it is none. An
  // IPv4-mapped address is an IPv4 address.
  function addressBits(net, text) {
    const quad = /^(.*:)?(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
    if (net.isIPv4(text)) {
      return quad.slice(2).map(function (n) { return binary(+n, 8); }).join('');
    }
    if (!net.isIPv6(text)) {
      return null;
    }
    if (quad) { // the last two groups, written as IPv4
      text = quad[1] + (quad[2] << 8 | quad[3]).toString(16) + ':' + (quad[4] << 8 | quad[5]).toString(16);
    }
    const halves = text.replace(/%.*/, '').split('::').map(function (half) {
      return half.split(':').filter(Boolean).map(function (group) { return binary(parseInt(group, 16), 16); }).join('');
    });
    const bits = halves.length === 1 ? halves[0] :
      halves[0] + '0'.repeat(128 - halves[0].length - halves[1].length) + halves[1];
    return bits.startsWith('0'.repeat(80) + '1'.repeat(16)) ? bits.slice(96) : bits;
  }

  function binary(n, width) {
    return n.toString(2).padStart(width, '0');
  }
})();
