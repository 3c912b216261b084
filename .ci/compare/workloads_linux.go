package main

import (
	"slices"

	"github.com/carpoolproxy/carpool/ci/compare/internal/load"
)

// via is how a proxy speaks to the upstream.
type via int

const (
	plain  via = iota
	secure     // HTTP/1.1 over TLS 1.3
	second     // HTTP/2 over TLS 1.3
)

// A workload is loads that each proxy takes in turn in each round, from one process of it.
type workload struct {
	name, title string
	via         via
	hosts       int  // upstreams, on an address each; 0 is 1
	fresh       bool // each round has a new process
	loose       bool // the kernel chooses the proxy's CPU
	asks        []ask
	// special measures what is no load; asks then says what is measured.
	special func(*bench, *turn) error
}

// An ask is one load.
type ask struct {
	name    string
	title   string // HOSTS stands for how many upstreams there are
	clients int
	rate    float64 // exchanges a second; 0 is as fast as the clients get answers
	open    []load.Turn
	turns   []load.Turn
	end     load.Ending
}

const (
	clients = 32
	many    = 2000
	steady  = 1000 // requests a second
)

var (
	get    = []load.Turn{{URL: "/api/v1/items?limit=10", Want: 64}}
	down   = []load.Turn{{URL: "/size/65536", Want: 65536}}
	up     = []load.Turn{{URL: "/api/v1/items", Body: 10 << 10, Want: 64}}
	tunnel = []load.Turn{{Connect: true}}
	bulk   = []load.Turn{{Up: 64, Down: 1 << 20}}
	// hello is what a request in TLS 1.3 moves: ClientHello and the server's flight with a certificate; then Finished
	// with the request, and the answer with two tickets. The bytes begin as TLS does, so who looks sees a tunnel.
	hello = []load.Turn{{Up: 517, Down: 2500}, {Up: 600, Down: 700}}
)

// workloads returns all workloads, in the order in which they run.
func workloads() []workload {
	return []workload{
		{name: "keepalive", title: "kept client connections", asks: []ask{
			{name: "keepalive", title: "32 clients, kept connections", clients: clients, turns: get}}},
		{name: "close", title: "clients that open a connection for each request", asks: []ask{
			{name: "close", title: "32 clients, a connection for each request", clients: clients, turns: get, end: load.ByServer}}},
		{name: "one", title: "one request at a time", asks: []ask{
			{name: "one", title: "one client, kept connection", clients: 1, turns: get},
			{name: "one-close", title: "one client, a connection for each request", clients: 1, turns: get, end: load.ByServer}}},
		{name: "rate", title: "1,000 requests a second", asks: []ask{
			{name: "rate", title: "1,000 requests a second, kept connections", clients: clients, rate: steady, turns: get},
			{name: "rate-close", title: "1,000 requests a second, a connection for each", rate: steady, clients: clients, turns: get, end: load.ByServer}}},
		{name: "bodies", title: "long bodies", asks: []ask{
			{name: "down", title: "answers of 64 KB", clients: clients, turns: down},
			{name: "up", title: "requests of 10 KB", clients: clients, turns: up}}},
		{name: "hosts-100", title: "100 upstreams in turn", hosts: 100, asks: []ask{
			{name: "hosts-100", title: "32 clients, HOSTS upstreams in turn", clients: clients, turns: get}}},
		{name: "hosts-10000", title: "10,000 upstreams in turn", hosts: 10000, fresh: true, asks: []ask{
			{name: "hosts-10000", title: "32 clients, HOSTS upstreams in turn", clients: clients, turns: get}}},
		{name: "https", title: "plain HTTP in, TLS 1.3 out", via: secure, asks: []ask{
			{name: "https", title: "https out, answers of 64 B", clients: clients, turns: get},
			{name: "https-close", title: "https out, a client connection for each request", clients: clients, turns: get, end: load.ByServer},
			{name: "https-down", title: "https out, answers of 64 KB", clients: clients, turns: down}}},
		{name: "http2", title: "plain HTTP in, HTTP/2 out", via: second, asks: []ask{
			{name: "http2", title: "HTTP/2 out, answers of 64 B", clients: clients, turns: get},
			{name: "http2-down", title: "HTTP/2 out, answers of 64 KB", clients: clients, turns: down}}},
		{name: "connect", title: "tunnels", asks: []ask{
			{name: "connect-bulk", title: "4 tunnels, 1 MB at a time", clients: 4, open: tunnel, turns: bulk},
			{name: "connect-tls", title: "a tunnel for each TLS exchange", clients: clients, turns: slices.Concat(tunnel, hello), end: load.ByClient}}},
		{name: "inside", title: "plain HTTP inside CONNECT", asks: []ask{
			{name: "inside", title: "plain HTTP inside CONNECT, kept connections", clients: clients, open: tunnel, turns: get},
			{name: "inside-close", title: "plain HTTP inside CONNECT, a connection for each request", clients: clients,
				turns: slices.Concat(tunnel, get), end: load.ByServer}}},
		{name: "growth", title: "2,000 clients", asks: []ask{
			{name: "kept-32", title: "32 clients, to go by", clients: clients, turns: get},
			{name: "kept-2000", title: "2,000 clients, kept connections", clients: many, turns: get},
			{name: "close-2000", title: "2,000 clients, a connection for each request", clients: many, turns: get, end: load.ByServer}}},
		{name: "idle", title: "memory of idle clients", fresh: true, loose: true, special: (*bench).idle, asks: []ask{
			{name: "idle", title: "idle clients", turns: get}}},
		{name: "start", title: "start and drain", fresh: true, loose: true, special: (*bench).startAndDrain, asks: []ask{
			{name: "start", title: "start and drain", turns: get}}},
	}
}
