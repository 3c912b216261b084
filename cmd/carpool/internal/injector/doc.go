// Package injector is the command `carpool injector`: an admission webhook that puts
// the sidecar into pods, for clusters whose API server cannot do so by itself. It
// does to a pod what the admission policies of charts/carpool do, by the code of
// `carpool inject`.
//
// Its certificates are its own. [plan] says what becomes of them, as a pure
// function; a [keeper] carries that out against the API server. All replicas do so,
// without a leader: whoever comes second finds the Secret changed, and reads it
// again.
package injector
