// Package config reads carpool's settings from environment variables.
//
// The struct [Config] is the one table of them: a field's type says how its variable is read, its tags hold the name,
// the default, the help and the option of Node's agentkeepalive that it takes the place of. README, the Helm chart and
// its schema are generated from this table or tested against it.
package config

import (
	"path/filepath"
	"time"

	"go.uber.org/zap/zapcore"
)

// prefix begins the name of every variable. No setting may have the shape of a Kubernetes service link (see
// serviceLink), such as CARPOOL_PORT.
const prefix = "CARPOOL_"

// Config holds every setting, in the order in which they are shown. It is plain data: [Load] makes it, nothing changes
// it. The variables' names are the envconfig tags behind CARPOOL_. Durations are never negative.
type Config struct {
	// Listen is the proxy's address: an IP address, localhost or nothing, and a port, of which 0 is any free one.
	Listen string `envconfig:"LISTEN" default:"127.0.0.1:3128" help:"Address and port of the proxy. Keep it on loopback: whoever reaches it can send requests through it."`

	// AdminListen is the address of health, metrics and the status page, in the form of Listen, and never the same.
	AdminListen string `envconfig:"ADMIN_LISTEN" default:":9128" help:"Address and port of /healthz, /readyz, /metrics and the status page. The kubelet must reach it, so it is not on loopback."`

	// LocalPorts are ports of loopback, none of them Listen's or AdminListen's, that lead to one upstream each; nil is none.
	LocalPorts LocalPorts `envconfig:"LOCAL_PORTS" help:"Ports of loopback that lead to one upstream each, such as 9001=https://api.partner.example,9002=http://orders:8080. A client that is given http://127.0.0.1:9001 for a base URL needs to know nothing of proxies or TLS. Empty: none."`

	// LogLevel is the least severe level that is logged.
	LogLevel zapcore.Level `envconfig:"LOG_LEVEL" default:"info" help:"Least severe level that is logged: debug, info, warn or error."`

	// LogFormat is the form of log lines.
	LogFormat LogFormat `envconfig:"LOG_FORMAT" default:"json" help:"Form of log lines: json for machines, console for people."`

	// AccessLog says which requests get a log line.
	AccessLog AccessLog `envconfig:"ACCESS_LOG" default:"errors" help:"Which requests get a log line: off, errors, all, or debug, which is all and a Server-Timing header in every answer. Of errors a few a second of each kind are logged, and how many more there were to each upstream."`

	// IdleTimeout is more than 0: the ceiling on how long an upstream connection stays pooled without a request.
	IdleTimeout time.Duration `envconfig:"IDLE_TIMEOUT" default:"50s" help:"Longest time an upstream connection is kept without a request. It is shorter where the server announces less or was seen to close sooner." agentkeepalive:"freeSocketTimeout"`

	// MaxConnAge is the age at which an upstream connection is retired, between requests only; 0 is no limit.
	MaxConnAge time.Duration `envconfig:"MAX_CONN_AGE" default:"20s" help:"Age at which an upstream connection is replaced, between requests. While no new one can be made it stays, for a minute at most. New pods behind a Service get traffic this way. 0: no limit." agentkeepalive:"socketActiveTTL"`

	// MaxConnAgeJitter is the share of MaxConnAge, 0 to 1, by which the ages of connections differ; 0 is none.
	MaxConnAgeJitter float64 `envconfig:"MAX_CONN_AGE_JITTER" default:"0.2" help:"Share of MAX_CONN_AGE, from 0 to 1, that is varied at random so that connections are not replaced all at once. 0: none."`

	// Balance says how requests to one upstream are spread over connections.
	Balance Balance `envconfig:"BALANCE" default:"spread" help:"How an upstream's connections are used: spread takes as many in turn as the request rate keeps warm, so that all pods behind a Service get their share; reuse takes the one that was used last."`

	// MaxRequestsPerConn is the number of requests after which an upstream connection is retired; 0 is no limit.
	MaxRequestsPerConn int `envconfig:"MAX_REQUESTS_PER_CONN" default:"0" help:"Number of requests after which an upstream connection is replaced. 0: no limit."`

	// MaxConnsPerHost is the most connections to one origin, idle ones included; 0 leaves it to the descriptor budget.
	MaxConnsPerHost int `envconfig:"MAX_CONNS_PER_HOST" default:"0" help:"Most connections to one upstream at a time. Further requests wait. 0: as many as the process may open files." agentkeepalive:"maxSockets"`

	// MaxPendingPerHost is the most requests that wait for a connection to one origin; 0 lets none wait.
	MaxPendingPerHost int `envconfig:"MAX_PENDING_PER_HOST" default:"1024" help:"Most requests that wait for a connection to one upstream. Further ones get 503 at once. 0: none waits."`

	// PendingTimeout is more than 0: the longest such wait.
	PendingTimeout time.Duration `envconfig:"PENDING_TIMEOUT" default:"10s" help:"Longest time a request waits for a connection. Then it gets 503."`

	// MaxIdlePerHost is the most idle connections kept to one origin; 0 keeps none.
	MaxIdlePerHost int `envconfig:"MAX_IDLE_PER_HOST" default:"1024" help:"Most connections to one upstream that are kept without a request. 0: none is kept and nothing is reused." agentkeepalive:"maxFreeSockets"`

	// NoReuseHosts are the hosts whose connections carry one request each; nil is none.
	NoReuseHosts Hosts `envconfig:"NO_REUSE_HOSTS" help:"Upstreams whose connections are not kept, such as legacy,.old.example.com,10.0.0.7:8080. A .suffix stands for every name below it. Name servers here that cannot be trusted with a second request on a connection. Empty: none."`

	// HTTP2 says whether https upstreams are spoken to in HTTP/2 where they can.
	HTTP2 HTTP2 `envconfig:"HTTP2" default:"off" help:"HTTP version towards https upstreams: auto takes HTTP/2 where the upstream offers it, so that many requests share one connection; off takes HTTP/1.1."`

	// H2C are the hosts spoken to in HTTP/2 without TLS; nil is none.
	H2C Hosts `envconfig:"H2C" help:"http upstreams that speak HTTP/2 without TLS, such as gRPC servers: orders:8080,.grpc.svc. A .suffix stands for every name below it. They must not be spoken to in HTTP/1.1. Empty: none."`

	// Warm are the upstreams that connections are kept open to ahead of need; nil is none.
	Warm Warm `envconfig:"WARM" help:"Upstreams that carpool keeps connections open to before requests need them, such as orders:8080=4,https://api.example.com=2. They are open before /readyz says ready, or 5 seconds have passed. NO_REUSE_HOSTS and the limits on connections come first. Empty: none."`

	// DNSTimeout is more than 0: the longest time for finding the addresses of a name.
	DNSTimeout time.Duration `envconfig:"DNS_TIMEOUT" default:"10s" help:"Longest time for finding the addresses of an upstream. Then the request gets 504. Long before, carpool asks a silent name server again, and the next one too."`

	// DNSMinTTL is how long addresses stand at least, whatever their TTL; less than a second counts as one.
	DNSMinTTL time.Duration `envconfig:"DNS_MIN_TTL" default:"5s" help:"Shortest time before the addresses of an upstream are looked up again, whatever the TTL. A name that does not exist stands for as long. Less than 1s counts as 1s."`

	// DNSMaxTTL is how long they stand at most, DNSMinTTL if that is more; 0 is no limit.
	DNSMaxTTL time.Duration `envconfig:"DNS_MAX_TTL" default:"5m" help:"Longest time before the addresses of an upstream are looked up again, whatever the TTL. Less than DNS_MIN_TTL counts as that. 0: no limit."`

	// DNSStale is for how long addresses are used past their time while the name servers fail; 0 is not at all.
	DNSStale time.Duration `envconfig:"DNS_STALE" default:"5m" help:"Time for which the last addresses of an upstream are used on while the name servers fail. 0: none."`

	// ResolvConf is the path of a resolv.conf; empty is the system's. Load does not open it.
	ResolvConf string `envconfig:"RESOLV_CONF" help:"File that names the name servers and the search list, in the form of resolv.conf(5). A server may also be [address]:port. Empty: the system's."`

	// DialTimeout is more than 0: the longest time for connecting and the TLS handshake together.
	DialTimeout time.Duration `envconfig:"DIAL_TIMEOUT" default:"5s" help:"Longest time for connecting to an upstream, TLS handshake included. Then the request gets 504."`

	// ResponseHeaderTimeout is the longest wait for a response head, counted from the end of the request; 0 is no limit.
	ResponseHeaderTimeout time.Duration `envconfig:"RESPONSE_HEADER_TIMEOUT" default:"0" help:"Longest time an upstream may take to begin its answer to a request. Then the request gets 504. 0: no limit, the app's own timeout decides." agentkeepalive:"timeout"`

	// BodyIdleTimeout is the longest silence inside a body, in either direction; 0 is no limit.
	BodyIdleTimeout time.Duration `envconfig:"BODY_IDLE_TIMEOUT" default:"0" help:"Longest silence inside a body. Then the request is aborted. 0: no limit, so that quiet event streams live." agentkeepalive:"timeout"`

	// UpstreamDeadTimeout is for TCP_USER_TIMEOUT and TCP keep-alive on upstream connections; 0 keeps the system's own.
	UpstreamDeadTimeout time.Duration `envconfig:"UPSTREAM_DEAD_TIMEOUT" default:"15s" help:"Time after which carpool gives up a connection whose other end no longer acknowledges anything (a lost node, a forgotten NAT entry). 0: the system's limits, about 15 minutes."`

	// ClientHeaderTimeout is the longest time from a request's first byte to the end of its head; 0 is no limit.
	ClientHeaderTimeout time.Duration `envconfig:"CLIENT_HEADER_TIMEOUT" default:"10s" help:"Longest time a client may take to send the head of a request it has begun. Then it gets 408. 0: no limit."`

	// ClientIdleTimeout is the time after which a client connection without a request is closed; 0 is never.
	ClientIdleTimeout time.Duration `envconfig:"CLIENT_IDLE_TIMEOUT" default:"0" help:"Time after which a client connection without a request is closed. 0: never, unless files or memory run short. Node.js reports such a close as socket hang up."`

	// TunnelHalfClosedTimeout is the longest silence in a tunnel or an upgraded connection of which one side has ended; 0
	// is no limit.
	TunnelHalfClosedTimeout time.Duration `envconfig:"TUNNEL_HALF_CLOSED_TIMEOUT" default:"1m" help:"Longest silence in a tunnel or an upgraded connection of which one side has ended. Then both sides are closed. 0: no limit."`

	// TunnelIdleTimeout is the longest silence in a tunnel or an upgraded connection that is open both ways; 0 is no limit.
	TunnelIdleTimeout time.Duration `envconfig:"TUNNEL_IDLE_TIMEOUT" default:"0" help:"Longest silence in a tunnel or an upgraded connection that is open both ways. Then both sides are closed. 0: no limit, so that quiet WebSockets live."`

	// SpareTunnels is how many connections to one place wait for the next tunnel, at most; 0 is none.
	SpareTunnels int `envconfig:"SPARE_TUNNELS" default:"0" help:"Connections that wait for the next CONNECT to a host and port to which tunnels were opened lately, at most. They save a tunnel DNS and TCP. Those that none takes end after 15 seconds. 0: none."`

	// MaxHeaderBytes is from 1KiB to 1MiB: the largest head, of a request as of a response.
	MaxHeaderBytes Bytes `envconfig:"MAX_HEADER_BYTES" default:"64KiB" help:"Largest head of a request or a response, from 1KiB to 1MiB."`

	// CAFile is the path of a PEM file; empty is none. Load does not open it.
	CAFile string `envconfig:"CA_FILE" help:"PEM file of certificate authorities that carpool trusts for https upstreams, besides the system's. It is read again when it changes. Empty: none."`

	// ClientCertFile is the path of a PEM file; empty is none, and then ClientKeyFile and ClientCertHosts are, too. Load
	// does not open it.
	ClientCertFile string `envconfig:"CLIENT_CERT_FILE" help:"PEM file of the certificate that carpool shows to the upstreams in CLIENT_CERT_HOSTS, with those it rests on behind it. It is read again when it changes. Empty: none."`

	// ClientKeyFile is the path of the PEM file that has the key; empty is ClientCertFile.
	ClientKeyFile string `envconfig:"CLIENT_KEY_FILE" help:"PEM file of the key to CLIENT_CERT_FILE. It is read again when it changes. Empty: the key is in CLIENT_CERT_FILE."`

	// ClientCertHosts are the upstreams that see the certificate.
	ClientCertHosts Hosts `envconfig:"CLIENT_CERT_HOSTS" help:"https upstreams that may see the client certificate, such as api.partner.example,.partner.example:8443. No other does. Empty: none."`

	// TLSOriginate are the hosts that requests reach in TLS that name them in plain HTTP; nil is none. An entry without a
	// port is for port 80 alone.
	TLSOriginate Hosts `envconfig:"TLS_ORIGINATE" help:"Hosts that http:// requests reach in https, verified, such as api.example.com,.partner.example,legacy:8443. Without a port an entry stands for port 80, which becomes 443; a port that is given stays. Empty: none."`

	// AllowHosts are the only hosts that may be asked for, besides the addresses in AllowCIDRs; nil is any.
	AllowHosts Hosts `envconfig:"ALLOW_HOSTS" help:"The only hosts that requests and tunnels may go to, such as orders,.example.com,10.0.0.7:8080, besides the addresses in ALLOW_CIDRS. A .suffix stands for every name below it. Empty: any."`

	// DenyHosts may not be asked for; nil is none.
	DenyHosts Hosts `envconfig:"DENY_HOSTS" help:"Hosts that requests and tunnels may not go to, in the form of ALLOW_HOSTS. Empty: none."`

	// AllowCIDRs are addresses that may be asked for by themselves, and those refused by default that are opened; nil is
	// none.
	AllowCIDRs CIDRs `envconfig:"ALLOW_CIDRS" help:"Addresses, such as 169.254.171.0/24,fd00:ec2:80::/64, that URLs may hold although they are not in ALLOW_HOSTS, and that are open although carpool refuses them by default. It limits nothing by itself. Empty: none."`

	// DenyCIDRs are addresses that are not connected to; nil is none.
	DenyCIDRs CIDRs `envconfig:"DENY_CIDRS" help:"Addresses, such as 10.9.0.0/16, that carpool does not connect to, whatever name leads there. Empty: none but those refused by default."`

	// ConnectPorts are the ports that CONNECT may ask for; nil is any.
	ConnectPorts Ports `envconfig:"CONNECT_PORTS" help:"Ports that CONNECT may go to, such as 443,8443. Empty: any."`

	// ConnectTunnelPorts are the ports whose tunnels are never looked into; nil is none.
	ConnectTunnelPorts Ports `envconfig:"CONNECT_TUNNEL_PORTS" help:"Ports, such as 8080, to which CONNECT is always a tunnel: carpool does not look for plain HTTP in it. Empty: none."`

	// AllowMetadata opens the metadata services of clouds.
	AllowMetadata bool `envconfig:"ALLOW_METADATA" default:"false" help:"Let requests reach the metadata services of clouds, which hold the node's credentials. ALLOW_CIDRS does not open them."`

	// Policy says what becomes of what ALLOW_HOSTS, DENY_HOSTS, DENY_CIDRS and CONNECT_PORTS refuse; it changes nothing of what is refused by default.
	Policy Policy `envconfig:"POLICY" default:"enforce" help:"What becomes of requests that ALLOW_HOSTS, DENY_HOSTS, DENY_CIDRS or CONNECT_PORTS refuse: enforce answers 403, report lets them through, counts and logs them. What carpool refuses by default stays refused."`

	// NextProxy is the proxy that everything goes out through but what NextNoProxy has; the zero value is none.
	NextProxy NextProxy `envconfig:"NEXT_PROXY" help:"Proxy that requests and tunnels go out through, such as http://proxy.corp:8080, or https:// if it is spoken to in TLS. There is no way round it: what it does not do fails. User and password belong into NEXT_PROXY_AUTH_FILE. Empty: none."`

	// NextNoProxy is what goes out without NextProxy.
	NextNoProxy NoProxy `envconfig:"NEXT_NO_PROXY" default:".svc,.cluster.local" help:"What goes out without NEXT_PROXY: host names with all names below them, .suffixes, IP addresses and ranges of them, such as .svc,.cluster.local,corp.example,10.0.0.0/8. Ranges are for addresses in URLs: no name is looked up for them. Names without a dot, localhost and loopback addresses never go there."`

	// NextProxyAuthFile is the path of a file with user:password; empty is none. Load does not open it.
	NextProxyAuthFile string `envconfig:"NEXT_PROXY_AUTH_FILE" help:"File with user:password for NEXT_PROXY, from a mounted Secret, say. carpool reads it again when it changes. Empty: none."`

	// Via says whether Via is sent, to upstreams and to clients.
	Via bool `envconfig:"VIA" default:"false" help:"Send Via to upstreams and clients. Some upstreams, such as nginx, do not compress for requests that have it."`

	// RetryIdempotencyKey allows the one retry also for POST and PATCH that carry Idempotency-Key.
	RetryIdempotencyKey bool `envconfig:"RETRY_IDEMPOTENCY_KEY" default:"false" help:"Send a POST or PATCH with an Idempotency-Key header once more when a reused connection died under it. Set it only if every upstream honours that header."`

	// PreloadDir is the absolute path of a directory that the preload script is written to at the start; empty is none.
	PreloadDir string `envconfig:"PRELOAD_DIR" help:"Directory, shared with the app, where carpool writes the preload script for Node.js before it is ready. Empty: none."`

	// CacheDir is the absolute path of a directory that the most used origins are remembered in; empty is none.
	CacheDir string `envconfig:"CACHE_DIR" help:"Directory of this container, such as an emptyDir volume, where carpool remembers which upstreams needed most connections. After a restart it opens some to them at once. Empty: none."`

	// BypassPorts are the ports that are looked at for connections that go past carpool; nil is off.
	BypassPorts PortsOrOff `envconfig:"BYPASS_PORTS" default:"80,8080" help:"Ports of plain HTTP. carpool counts the pod's connections to them that go past it. off: it counts none."`

	// DrainDelay is at most DrainTimeout: how long after SIGTERM carpool serves on in any case; 0 is not at all.
	DrainDelay time.Duration `envconfig:"DRAIN_DELAY" default:"0" help:"Time after SIGTERM in which carpool serves on even if nothing is open, for an app that still shuts down. At most DRAIN_TIMEOUT. 0: none."`

	// DrainTimeout is the longest time from SIGTERM to exit; 0 is at once.
	DrainTimeout time.Duration `envconfig:"DRAIN_TIMEOUT" default:"25s" help:"Longest time from SIGTERM to exit, while open requests and tunnels end. Keep it below the pod's terminationGracePeriodSeconds. 0: exit at once."`
}

// A rule is what a type alone cannot say about a setting.
type rule struct {
	name string             // the setting that is wrong if the rule is broken
	with string             // another setting that the rule reads, or ""
	ok   func(*Config) bool // may rely on name and with being well-formed and keeping the rules before
	want string             // what is expected, with an example
}

const wantListen = "an IP address or localhost or nothing, and a port, e.g. 127.0.0.1:3128 or :9128"

var rules = []rule{
	{
		name: "LISTEN",
		ok:   func(c *Config) bool { _, ok := listenAddr(c.Listen); return ok },
		want: wantListen,
	}, {
		name: "ADMIN_LISTEN",
		ok:   func(c *Config) bool { _, ok := listenAddr(c.AdminListen); return ok },
		want: wantListen,
	}, {
		name: "ADMIN_LISTEN",
		with: "LISTEN",
		ok:   func(c *Config) bool { return !overlap(c.Listen, c.AdminListen) },
		want: "another port than that of CARPOOL_LISTEN, e.g. 127.0.0.1:3128 for the proxy and :9128 here",
	}, {
		name: "LOCAL_PORTS",
		with: "LISTEN",
		ok:   func(c *Config) bool { return c.LocalPorts.clear(c.Listen) && c.LocalPorts.clear(c.AdminListen) },
		want: "other ports than those of CARPOOL_LISTEN and CARPOOL_ADMIN_LISTEN, e.g. 9001=https://api.partner.example",
	}, {
		name: "NEXT_PROXY",
		with: "LISTEN",
		ok:   func(c *Config) bool { return !c.NextProxy.leadsTo(c.Listen) },
		want: "another proxy than carpool itself, which listens there (CARPOOL_LISTEN)",
	}, {
		name: "NEXT_PROXY",
		with: "ADMIN_LISTEN",
		ok:   func(c *Config) bool { return !c.NextProxy.leadsTo(c.AdminListen) },
		want: "a proxy, not carpool's own CARPOOL_ADMIN_LISTEN",
	}, {
		name: "IDLE_TIMEOUT",
		ok:   func(c *Config) bool { return c.IdleTimeout > 0 },
		want: "more than 0, e.g. 50s (CARPOOL_MAX_IDLE_PER_HOST=0 keeps no idle connection)",
	}, {
		name: "PENDING_TIMEOUT",
		ok:   func(c *Config) bool { return c.PendingTimeout > 0 },
		want: "more than 0, e.g. 10s (CARPOOL_MAX_PENDING_PER_HOST=0 lets no request wait)",
	}, {
		name: "DNS_TIMEOUT",
		ok:   func(c *Config) bool { return c.DNSTimeout > 0 },
		want: "more than 0, e.g. 10s",
	}, {
		name: "DIAL_TIMEOUT",
		ok:   func(c *Config) bool { return c.DialTimeout > 0 },
		want: "more than 0, e.g. 5s",
	}, {
		name: "MAX_HEADER_BYTES",
		ok:   func(c *Config) bool { return KiB <= c.MaxHeaderBytes && c.MaxHeaderBytes <= MiB },
		want: "from 1KiB to 1MiB, e.g. 64KiB",
	}, {
		name: "CLIENT_KEY_FILE",
		with: "CLIENT_CERT_FILE",
		ok:   func(c *Config) bool { return c.ClientKeyFile == "" || c.ClientCertFile != "" },
		want: "CARPOOL_CLIENT_CERT_FILE too, e.g. /etc/carpool/secret/tls.crt",
	}, {
		name: "CLIENT_CERT_HOSTS",
		with: "CLIENT_CERT_FILE",
		ok:   func(c *Config) bool { return c.ClientCertHosts == nil || c.ClientCertFile != "" },
		want: "CARPOOL_CLIENT_CERT_FILE too, e.g. /etc/carpool/secret/tls.crt",
	}, {
		name: "PRELOAD_DIR",
		ok:   func(c *Config) bool { return c.PreloadDir == "" || filepath.IsAbs(c.PreloadDir) },
		want: "an absolute path, e.g. /carpool",
	}, {
		name: "CACHE_DIR",
		ok:   func(c *Config) bool { return c.CacheDir == "" || filepath.IsAbs(c.CacheDir) },
		want: "an absolute path, e.g. /cache",
	}, {
		name: "DRAIN_DELAY",
		with: "DRAIN_TIMEOUT",
		ok:   func(c *Config) bool { return c.DrainDelay <= c.DrainTimeout },
		want: "at most CARPOOL_DRAIN_TIMEOUT, e.g. 5s and 25s",
	},
}
