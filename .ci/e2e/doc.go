// Package e2e runs carpool on a real cluster, the way its users do: what the
// README says, in one paste. The apps are a service of 2020
// (Node.js 12, axios 0.21, a connection for each request) in a Deployment, a
// Job and a CronJob; the upstream is three pods behind a Service; Pod Security
// "restricted" is enforced.
//
//	.ci/e2e/run
//
// builds the images, brings them to the cluster and runs the tests; it says
// what it needs. What is asserted is what the upstream, the kubelet and the
// API server report, and what the apps say with their last words; carpool's
// own figures are only printed.
//
// The tests are steps of one story, each building on the one before. They make
// the namespaces carpool-e2e and carpool-e2e-system, and delete them at the
// beginning, not at the end, so that one can look at what is left. On a cluster
// that has a release of carpool already, helm refuses to install a second.
package e2e
