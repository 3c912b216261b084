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
// With CARPOOL_PRELOAD_HTTPS=true it does the same for https. The request goes to
// the proxy in plain text, over loopback, and the proxy speaks TLS and verifies the
// origin. That is for programs that leave TLS to its defaults and open a connection
// for each request; an agent that keeps connections does as well without it. And it
// is for origins that would have been reached anyway. The first requests to an origin
// go directly, and the others, too, until
//
//   - one of them has gone well on a connection that Node.js has verified, and the
//     program has not looked at the certificate, so it pins none; and
//   - the proxy has said that it can verify the origin. It is asked at the second
//     request, and a minute after it has said no.
//
// A connection to the proxy then looks as one of TLS does to programs. Where the
// proxy answers that something is wrong, the request fails with the error that a
// connection of its own would have had. CARPOOL_PRELOAD_ERRORS=true does that for
// http as well, where such answers are 502 and 504 otherwise.
//
// It leaves alone: http2 and fetch; agents with a way of their own to connect,
// other proxies' among them; requests with socketPath, createConnection, lookup,
// localAddress or localPort; CONNECT and Upgrade; a Host that is not the address
// called, which a proxy cannot be told apart; and what NO_PROXY or the proxy itself
// excludes. Of https also all that has an option for TLS (ca, cert, ciphers,
// checkServerIdentity, …), and everything while a default of TLS is changed
// (tls.connect, NODE_TLS_REJECT_UNAUTHORIZED, …). It does nothing unless HTTP_PROXY
// is a proxy on loopback, or where Node.js reads HTTP_PROXY by itself
// (NODE_USE_ENV_PROXY). The environment is read once, at the start.
'use strict';

(function () {
  // What carpool does not connect to, in the syntax of NO_PROXY: link-local
  // addresses and the metadata services of clouds, as package policy has them.
  const REFUSED = '169.254.0.0/16,fe80::/10,100.100.100.200,fd00:100::100:200,fd00:ec2::/32,168.63.129.16,' +
    'fd20:ce::254,fd00:a9fe:a9fe::1,192.0.0.192,fd00:c1::a9fe:a9fe,fd00:42::42,' +
    'metadata.google.internal,metadata.google.internal.,metadata,metadata.tencentyun.com';
  const MAX_KNOWN = 1000; // hosts, and origins, that are remembered
  const ASK_AGAIN = 60000; // ms after the proxy could not verify an origin
  const ASK_FOR = 30000; // ms that it may take to answer
  const NONE = Object.freeze([]);

  const net = require('net');
  const nextTick = process.nextTick; // programs replace it in tests

  function install(proxy, set) {
    const http = require('http');
    const Agent = http.Agent;
    const loaded = Symbol.for('carpool.preload');
    const firstDefault = http.globalAgent;
    if (Agent.prototype[loaded] || firstDefault.options.proxyEnv) {
      return;
    }
    const exempt = matcher(set.noProxy + ',' + REFUSED);
    const door = doorOf(proxy);
    const pool = newPool(Agent, function () { return net.createConnection(door); });
    const getName = Agent.prototype.getName;
    const addRequest = Agent.prototype.addRequest;
    let lane = null; // made when it is needed, for it loads modules
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
        if (plan && !plan.direct && !prepare(req, plan)) {
          plan = null;
        }
      } catch (err) {
        plan = null;
      }
      return plan ? addRequest.call(plan.agent, req, plan.options) : addRequest.apply(this, arguments);
    };

    if (set.https) {
      lane = newLane(Agent, door);
      lane.open(function (to) { return !to.proxyAuth && leadsToProxy(to); });
    }

    // planFor returns how a request is to go out, or null if it is left alone:
    //   agent, options   what it is given to
    //   direct   whether nothing else is changed
    //   origin   what is put before its path, "" if it has one
    //   shared   whether it may share a connection whatever its headers say
    //   errors   whether it fails where the proxy answers that something is wrong
    //   known    what is known of its origin, if that is https
    function planFor(agent, req, options) {
      if (!isOrdinary(agent, req, options)) {
        return null;
      }
      switch (agent.protocol) {
        case 'http:': return isPlain(agent, Agent.prototype) ? plainPlan(agent, req, options) : null;
        case 'https:': return securePlan(agent, req, options);
      }
      return null;
    }

    function plainPlan(agent, req, options) {
      const isDefault = agent === http.globalAgent || agent === firstDefault;
      if (isAbsolute(req.path)) {
        return isDefault && leadsToProxy(options) ? toProxy(agent, options, '', isDefault, !agent.keepAlive && pool) : null;
      }
      const origin = originOf(req, options, 'http://', 80);
      return origin === null || exempt(options.host, +options.port) ? null :
        toProxy(agent, options, origin, isDefault, isDefault && !agent.keepAlive && pool);
    }

    function securePlan(agent, req, options) {
      const misled = isAbsolute(req.path); // to the proxy, in TLS: axios 0.21 after a redirect from http
      if (misled ? !leadsToProxy(options) : !set.https || keepsConnection(agent, req)) {
        return null;
      }
      lane = lane || newLane(Agent, door);
      const isDefault = lane.isDefault(agent);
      if (!lane.isPlain(agent) || !lane.leavesTLS(agent, options)) {
        return null;
      }
      if (misled) {
        return isDefault ? toProxy(agent, options, '', isDefault, lane.pool) : null;
      }
      const origin = originOf(req, options, 'https://', 443);
      if (origin === null || exempt(options.host, +options.port)) {
        return null;
      }
      const known = lane.origin(origin.toLowerCase());
      if (!known.isOpen()) {
        return { direct: true, agent: agent, options: Object.assign({ carpoolWatch: known }, options) };
      }
      const plan = toProxy(agent, options, origin, isDefault, isDefault && lane.pool);
      plan.known = known;
      plan.errors = true;
      return plan;
    }

    // toProxy plans a connection to the proxy: one of pool's, or of the agent's if
    // there is none.
    function toProxy(agent, options, origin, isDefault, pool) {
      const plan = { direct: false, origin: origin, shared: isDefault, errors: set.errors, known: null, agent: agent, options: options };
      if (pool) {
        pool.maxSockets = agent.maxSockets;
        pool.maxTotalSockets = agent.maxTotalSockets;
        plan.agent = pool;
        // Without limits there is no reason to keep origins apart.
        plan.options = Object.assign({ servername: '', carpoolOrigin: isFinite(agent.maxSockets) ? origin || 'proxy' : '' }, door);
      } else if (origin) {
        plan.options = Object.assign({}, options, { servername: '', carpoolOrigin: origin }, door);
        delete plan.options.family; // of the origin's address
      }
      return plan;
    }

    function leadsToProxy(to) {
      const host = String(to.host).toLowerCase();
      return +to.port === proxy.port && (host === proxy.host || parseProxy('http://' + bracketed(host)) !== null);
    }
  }

  // doorOf returns the options of a connection to the proxy. Programs wait for
  // the look-up of a name, for which there is an event that an address alone would
  // not make: after the program has seen the socket, so two ticks later.
  function doorOf(proxy) {
    const family = net.isIP(proxy.host);
    if (family === 0) {
      return { host: proxy.host, port: proxy.port };
    }
    return { host: 'localhost', port: proxy.port, autoSelectFamily: false, lookup: function (host, options, cb) {
      nextTick(nextTick, function () {
        if (options.all) {
          cb(null, [{ address: proxy.host, family: family }]);
        } else {
          cb(null, proxy.host, family);
        }
      });
    } };
  }

  // isPlain reports whether an agent connects as Node's own do, whose prototype
  // is given.
  function isPlain(agent, plain) {
    const o = agent.options;
    return agent.createConnection === plain.createConnection && agent.createSocket === plain.createSocket &&
      agent.getName === plain.getName && !o.proxyEnv && !o.host && !o.port && connectsItself(o);
  }

  // isOrdinary reports whether a request can be sent by way of a proxy. The
  // target of CONNECT is neither a path nor absolute.
  function isOrdinary(agent, req, options) {
    return typeof options === 'object' && (options.protocol || agent.protocol) === agent.protocol && connectsItself(options) &&
      !field(req, 'upgrade') && typeof req.path === 'string' && /^(\/|https?:\/\/)[^#]*$/i.test(req.path) &&
      typeof req._implicitHeader === 'function';
  }

  function isAbsolute(path) {
    return path.charAt(0) !== '/';
  }

  // keepsConnection reports whether an agent will keep the connection of a request.
  function keepsConnection(agent, req) {
    return agent.keepAlive === true && req.shouldKeepAlive && !isClose(field(req, 'connection'));
  }

  function isClose(connection) {
    return connection.trim().toLowerCase() === 'close';
  }

  // newPool returns the agent that takes the place of a default agent without
  // keep-alive. A program that counts on that default may treat a connection as
  // its own for good, so each request leaves it here as it was when new.
  function newPool(Agent, connect) {
    const pool = new Agent({ keepAlive: true });
    pool.createConnection = function () {
      const socket = connect();
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

  // --- https

  // newLane returns the way of https requests through the proxy.
  //   open        lets requests use it
  //   origin      what is known of an origin
  //   pool        takes the place of the default agent
  //   isDefault, isPlain, leavesTLS   see below
  function newLane(Agent, door) {
    const https = require('https');
    const plain = https.Agent.prototype;
    const firstDefault = https.globalAgent;
    const defaults = defaultsOfTLS(require('tls'));
    const Disguised = disguised();
    const origins = new Map();

    function connect(options) {
      const socket = new Disguised(options);
      if (options.timeout) {
        socket.setTimeout(options.timeout);
      }
      return socket.connect(options).setNoDelay(true);
    }

    return {
      pool: newPool(Agent, function () { return connect(door); }),

      isDefault: function (agent) { return agent === https.globalAgent || agent === firstDefault; },

      isPlain: function (agent) { return isPlain(agent, plain) && agent.createConnection === (this.connection || plain.createConnection); },

      // leavesTLS reports whether nothing says how to speak TLS: no option of the
      // agent or the request, no default that the program has changed.
      leavesTLS: function (agent, options) {
        return defaults.areKept() && defaults.areMeant(agent, options);
      },

      origin: function (url) {
        let origin = origins.get(url);
        if (!origin) {
          if (origins.size >= MAX_KNOWN) {
            origins.clear();
          }
          origins.set(url, origin = new Origin(url, door));
        }
        return origin;
      },

      open: function (leadsToProxy) {
        const direct = plain.createConnection;
        this.connection = plain.createConnection = function (options) {
          if (options && options.carpoolOrigin) {
            return connect(Object.assign({}, options, { socket: undefined, path: undefined }));
          }
          const socket = direct.apply(this, arguments);
          if (options && options.carpoolWatch) {
            watch(socket, options.carpoolWatch);
          }
          return socket;
        };
        leaveTunnels(https, leadsToProxy);
      },
    };
  }

  // leaveTunnels makes the library request, which tunnels https to whatever
  // HTTP_PROXY names, ask as if there were no proxy.
  function leaveTunnels(https, leadsToProxy) {
    const request = https.request;
    https.request = function (options) {
      const to = options && options.tunnel === true && options.agent && options.agent.proxyOptions;
      if (to && leadsToProxy(to)) {
        arguments[0] = Object.assign({}, options, { agent: undefined });
      }
      return request.apply(this, arguments);
    };
  }

  // Options of TLS that getName, by which Node.js tells connections apart, does
  // not have in every version.
  const OF_TLS = ['ca', 'cert', 'key', 'pfx', 'passphrase', 'crl', 'ciphers', 'checkServerIdentity', 'secureContext',
    'secureProtocol', 'secureOptions', 'minVersion', 'maxVersion', 'ALPNProtocols', 'NPNProtocols', 'session', 'ecdhCurve',
    'sigalgs', 'dhparam', 'minDHSize', 'honorCipherOrder', 'clientCertEngine', 'privateKeyIdentifier', 'privateKeyEngine',
    'pskCallback', 'requestOCSP', 'allowPartialTrustChain', 'sessionIdContext', 'ticketKeys', 'SNICallback', 'ALPNCallback',
    'enableTrace', 'requestCert', 'isServer', 'socket', 'fd', 'handle', 'ticketCompatible'];
  // Defaults that a program may replace, or wrap to see what passes.
  const OF_ALL = ['connect', 'createSecureContext', 'checkServerIdentity', 'DEFAULT_MIN_VERSION', 'DEFAULT_MAX_VERSION',
    'DEFAULT_CIPHERS', 'DEFAULT_ECDH_CURVE'];
  const FLAGS = /--(use-(openssl|system|bundled)-ca|tls-(min|max|cipher|keylog)|openssl-|enable-fips|force-fips|secure-heap)/;

  // defaultsOfTLS remembers them as they are.
  function defaultsOfTLS(tls) {
    const getName = require('https').Agent.prototype.getName;
    const flagged = FLAGS.test(process.execArgv.concat(process.env.NODE_OPTIONS || '').join(' '));
    const first = OF_ALL.map(function (name) { return tls[name]; });
    const setAuthorities = tls.setDefaultCACertificates; // of Node.js 24 and later
    let changed = flagged;
    if (setAuthorities) {
      tls.setDefaultCACertificates = function () {
        changed = true;
        return setAuthorities.apply(this, arguments);
      };
    }
    return {
      areKept: function () {
        return !changed && process.env.NODE_TLS_REJECT_UNAUTHORIZED !== '0' &&
          OF_ALL.every(function (name, i) { return tls[name] === first[i]; });
      },

      // areMeant reports whether the options of an agent and a request have nothing
      // else. The agent's win.
      areMeant: function (agent, options) {
        const all = Object.assign({}, options, agent.options);
        if (OF_TLS.some(function (name) { return all[name] !== undefined && all[name] !== null && all[name] !== false; })) {
          return false;
        }
        const name = all.servername;
        const verified = all.rejectUnauthorized;
        if (name !== undefined && name !== null && String(name).toLowerCase() !== String(options.host).toLowerCase() ||
          verified !== undefined && verified !== null && verified !== true) {
          return false;
        }
        all.servername = all.rejectUnauthorized = undefined;
        return getName.call(agent, all) === getName.call(agent, { host: all.host, port: all.port, family: all.family });
      },
    };
  }

  // An Origin is what is known of an https origin.
  class Origin {
    constructor(url, door) {
      this.url = url;
      this.door = door;
      this.requests = 0; // until it is open
      this.verified = false; // by Node.js, for a request that went well
      this.vouched = false; // by the proxy
      this.looked = false; // the program looks at the certificate itself
      this.asking = false;
      this.askAt = 0;
    }

    // isOpen reports whether a request may go through the proxy. If only the
    // proxy's word is missing it is asked for, but not where one request was all.
    isOpen() {
      if (!this.vouched && !this.looked && ++this.requests > 1 && !this.asking && Date.now() >= this.askAt) {
        this.ask();
      }
      return this.verified && this.vouched && !this.looked;
    }

    // doubt starts anew, after the proxy could not verify the origin.
    doubt() {
      this.verified = this.vouched = false;
      this.askAt = Date.now() + ASK_AGAIN;
    }

    // ask asks the proxy. What it refuses by a rule is for it to refuse.
    ask() {
      const socket = net.createConnection(this.door);
      let answer = '';
      this.asking = true;
      socket.unref();
      socket.setEncoding('latin1');
      socket.setTimeout(ASK_FOR, function () { socket.destroy(); });
      socket.on('data', function (data) {
        answer += data;
        if (answer.indexOf('\r\n\r\n') >= 0) {
          socket.destroy();
        }
      });
      socket.on('error', function () {}); // close follows
      socket.on('close', () => {
        this.asking = false;
        this.vouched = /^HTTP\/1\.1 (200|403) [^]*\r\n(carpool-verified: \?1|proxy-status: carpool; error=(destination_ip_prohibited|http_request_denied))\r\n/i.test(answer);
        this.askAt = Date.now() + ASK_AGAIN;
      });
      socket.write('OPTIONS ' + this.url + '/ HTTP/1.1\r\nHost: ' + this.url.slice('https://'.length) +
        '\r\nMax-Forwards: 0\r\nCarpool-Verify: ?1\r\nConnection: close\r\n\r\n');
    }
  }

  // watch sees whether a direct connection does as well as the proxy's would.
  function watch(socket, origin) {
    socket.once('secureConnect', function () {
      if (!socket.authorized) {
        return;
      }
      ['getPeerCertificate', 'getPeerX509Certificate', 'getFinished', 'getPeerFinished', 'exportKeyingMaterial'].forEach(function (name) {
        const look = socket[name];
        if (look) {
          socket[name] = function () {
            origin.looked = true;
            return look.apply(this, arguments);
          };
        }
      });
      socket.once('close', function () { origin.verified = true; });
    });
  }

  // disguised returns the class of connections to the proxy that look as those of
  // TLS do.
  function disguised() {
    function look(socket) {
      const known = socket._httpMessage && socket._httpMessage.carpoolKnown;
      if (known) {
        known.looked = true; // its next requests show it
      }
    }

    class Disguised extends net.Socket {
      constructor(options) {
        super(options);
        this.encrypted = true;
        this.authorized = false;
        this.authorizationError = null;
        this.secureConnecting = true;
        this.once('ready', function () { // which follows connect: what waits for that comes first
          this.authorized = true;
          this.secureConnecting = false;
          this.emit('secureConnect');
        });
      }
      getPeerCertificate() { look(this); return {}; }
      getPeerX509Certificate() { look(this); }
      exportKeyingMaterial() { look(this); throw new Error('carpool: the connection to the proxy has no key'); }
      getFinished() { look(this); }
      getPeerFinished() { look(this); }
      getCertificate() { return {}; }
      getX509Certificate() {}
      getCipher() { return {}; }
      getEphemeralKeyInfo() { return {}; }
      getSharedSigalgs() { return []; }
      getProtocol() { return null; }
      getSession() {}
      getTLSTicket() {}
      isSessionReused() { return false; }
      setSession() {}
      setServername() {}
      setMaxSendFragment() { return true; }
      disableRenegotiation() {}
      enableTrace() {}
      renegotiate(options, cb) {
        if (cb) {
          nextTick(cb, new Error('carpool: the connection to the proxy has no key'));
        }
        return false;
      }
    }
    Disguised.prototype.alpnProtocol = false;
    Disguised.prototype.servername = null;
    return Disguised;
  }

  // --- what comes back

  // What a direct connection would have failed with, by the error types of
  // RFC 9209 and what carpool adds to them: code, message, system call. Another
  // type is as the last.
  const ERRORS = {
    'connection_refused': ['ECONNREFUSED', 'connect ECONNREFUSED', 'connect'],
    'connection_timeout': ['ETIMEDOUT', 'connect ETIMEDOUT', 'connect'],
    'destination_ip_unroutable': ['EHOSTUNREACH', 'connect EHOSTUNREACH', 'connect'],
    'destination_unavailable': ['ECONNREFUSED', 'connect ECONNREFUSED', 'connect'],
    'dns_error': ['ENOTFOUND', 'getaddrinfo ENOTFOUND', 'getaddrinfo'],
    'dns_error unresolved': ['EAI_AGAIN', 'getaddrinfo EAI_AGAIN', 'getaddrinfo'],
    'dns_timeout': ['EAI_AGAIN', 'getaddrinfo EAI_AGAIN', 'getaddrinfo'],
    'http_protocol_error': ['HPE_INVALID_CONSTANT', 'Parse Error'],
    'http_response_timeout': ['ETIMEDOUT', 'read ETIMEDOUT', 'read'],
    'tls_protocol_error': ['EPROTO', 'the TLS handshake failed', 'write'],
    'tls_certificate_error': ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'unable to verify the first certificate'],
    'tls_certificate_error expired': ['CERT_HAS_EXPIRED', 'certificate has expired'],
    'tls_certificate_error not_yet_valid': ['CERT_NOT_YET_VALID', 'certificate is not yet valid'],
    'tls_certificate_error wrong_name': ['ERR_TLS_CERT_ALTNAME_INVALID', "Hostname/IP does not match certificate's altnames"],
    'tls_certificate_error self_signed': ['DEPTH_ZERO_SELF_SIGNED_CERT', 'self signed certificate'],
    'tls_certificate_error weak_signature': ['CERT_SIGNATURE_FAILURE', 'certificate signature failure'],
    'other': ['ECONNRESET', 'socket hang up'],
  };

  // attend stands between what comes back on a request and the program. It is no
  // listener for the response: that would take it from a program that has none.
  function attend(req, plan) {
    const emit = req.emit;
    let failed = false;
    req.emit = function (event, arg) {
      if (event === 'error') {
        if (failed) {
          return true;
        }
        if (plan.known && arg && arg.syscall === 'connect') { // the proxy is not there
          plan.known.vouched = false;
        }
      } else if (event === 'response' && arg) {
        const err = plan.errors ? errorOf(req, arg, plan.known) : null;
        if (err) {
          failed = true;
          emit.call(req, 'error', err);
          arg.socket.destroy(); // as it would have been: what is left of the request goes nowhere
          return true;
        }
        if (plan.shared) {
          keepSocket(arg);
        }
      }
      return emit.apply(this, arguments);
    };
  }

  // errorOf returns the error that is told by an answer of the proxy's own, null
  // if it is none.
  function errorOf(req, res, known) {
    const headers = res.headers;
    const told = /^carpool; error=([a-z_]+)(?:; details="([a-z_]+)")?/.exec(headers['proxy-status'] || '');
    if (res.statusCode < 500 || res.statusCode === 508 || !told || !/(^|, *)carpool$/.test(headers.connection || '')) {
      return null;
    }
    const error = ERRORS[told[1] + (told[2] ? ' ' + told[2] : '')] || ERRORS[told[1]] || ERRORS.other;
    const host = String(field(req, 'host'));
    const err = new Error(error[1] + (error[2] ? ' ' + host : ''));
    err.code = err.errno = error[0];
    if (error[2]) {
      err.syscall = error[2];
    }
    err.hostname = err.host = host.replace(/:\d+$/, '');
    err.proxyStatus = headers['proxy-status'];
    if (known && told[1].lastIndexOf('tls_', 0) === 0) {
      known.doubt();
    }
    return err;
  }

  // keepSocket leaves a response its socket to the end. Node.js 14 to 18 take it
  // away before the program's listeners for that are called.
  function keepSocket(res) {
    const socket = res.socket;
    res.on('end', function () {
      if (res.socket === null) {
        res.destroy = function () { return this; }; // it may be another's by then
        res.socket = socket;
      }
    });
  }

  // --- connections and requests

  // connectsItself reports whether nothing in an agent's or a request's options
  // says how to connect, other than where to.
  function connectsItself(o) {
    return !(o.socketPath || o.createConnection || o.lookup || o.localAddress || o.localPort);
  }

  // prepare changes a request as planned. It does so wholly or not at all.
  function prepare(req, plan) {
    if (!rewrite(req, plan)) {
      return false;
    }
    if (plan.known) {
      req.carpoolKnown = plan.known;
    }
    if (plan.shared || plan.errors) {
      attend(req, plan);
    }
    return true;
  }

  function rewrite(req, plan) {
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
    if (isClose(field(req, 'connection'))) {
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

  // originOf returns scheme://host[:port] as the request's Host has it, or null
  // if the proxy would take it for another or for none.
  function originOf(req, options, scheme, usualPort) {
    const host = String(options.host).toLowerCase();
    const authority = bracketed(host);
    const port = +options.port;
    const written = field(req, 'host');
    const named = written.toLowerCase();
    if (named !== authority + ':' + port && !(port === usualPort && named === authority)) {
      return null;
    }
    if (authority.charAt(0) === '[') {
      return net.isIPv6(authority.slice(1, -1)) && host.indexOf('%') < 0 ? scheme + written : null;
    }
    const last = host.replace(/\.$/, '').split('.').pop();
    const numeric = /^(\d+|0x[0-9a-f]*)$/.test(last); // an address, or a spelling of one that only some read
    const valid = numeric ? net.isIPv4(host) : /^([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?$/.test(host);
    return valid ? scheme + written : null;
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
  function matcher(list) {
    const entries = list.toLowerCase().split(/[\s,]+/).filter(Boolean).map(function (text) {
      const m = /^(.*?[^:]|\[.*\]):(\d+)$/.exec(text);
      const ported = m && (net.isIPv6(text) ? null : m);
      const host = (ported ? ported[1] : text).replace(/^\[|\]$/g, '').replace(/^\*?\./, '').replace(/\.$/, '');
      return { host: host, port: ported ? +ported[2] : 0, range: parseRange(host) };
    });
    const verdicts = new Map();
    return function (rawHost, port) {
      const key = rawHost + ' ' + port;
      let verdict = verdicts.get(key);
      if (verdict === undefined) {
        const host = String(rawHost).toLowerCase().replace(/^\[|\]$/g, '').replace(/\.$/, '');
        const bits = addressBits(host);
        verdict = entries.some(function (e) {
          return (e.port === 0 || e.port === port) && (e.host === '*' || e.host === host ||
            (bits === null ? host.endsWith('.' + e.host) : e.range !== null && inRange(bits, e.range)));
        });
        if (verdicts.size >= MAX_KNOWN) {
          verdicts.clear();
        }
        verdicts.set(key, verdict);
      }
      return verdict;
    };
  }

  // parseRange returns the bits that the addresses of a range begin with, null
  // if the text is no range. An address is a range of one.
  function parseRange(text) {
    const parts = text.split('/');
    const bits = addressBits(parts[0]);
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
  function addressBits(text) {
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

  try {
    const env = process.env;
    const proxy = parseProxy(env.http_proxy || env.HTTP_PROXY);
    if (proxy) {
      install(proxy, {
        noProxy: env.no_proxy || env.NO_PROXY || '',
        https: env.CARPOOL_PRELOAD_HTTPS === 'true',
        errors: env.CARPOOL_PRELOAD_ERRORS === 'true',
      });
    }
  } catch (err) {
    // The program is to start as it would without this script.
  }
})();
