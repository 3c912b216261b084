// Package preload holds the script that makes Node.js send its plain HTTP
// through carpool: Node's own http module reads no HTTP_PROXY, and what is built
// on it (got, node-fetch, superagent) neither. It is loaded before the program,
// by NODE_OPTIONS=--require=FILE. What it does and leaves alone stands at its
// head.
package preload

import _ "embed"

// Script is the script: one CommonJS file for Node.js 10 to 26 without
// dependencies. It must not be changed.
//
//go:embed preload.js
var Script []byte
