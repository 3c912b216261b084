// Package e2e runs carpool on a real cluster, the way its users do.
//
//	.ci/e2e/run
//
// builds the images, brings them to the cluster and runs the tests; it says
// what it needs. What is asserted is what the upstream, the kubelet and the
// API server report, and what the apps say; carpool's own figures are only
// printed, but for how often it opens a connection.
//
// The first test is what the README says, in one paste. The apps are a service
// of 2020 (Node.js 12, axios 0.21, a connection for each request) in a
// Deployment, a Job and a CronJob; the upstream is three pods behind a Service;
// Pod Security "restricted" is enforced. The steps are those of one story, each
// building on the one before. On a cluster that has a release of carpool
// already, helm refuses to install a second.
//
// The second test is an upstream that moves: scaled from 2 to 6 to 3 pods and
// rolled, behind a Service and behind a headless one, and left without a name
// server for a while. Package traffic is what runs in its pods.
//
// The third is the webhook, forced on a cluster that may have the policy: rolled,
// emptied, gone, exchanged for the policy, uninstalled. It needs pods that reach the API
// server with the certificate that kube-root-ca.crt has.
//
// The fourth is a program whose calls are all https: by itself, with the script for
// Node.js, and by a local port. It logs connections, handshakes and CPU of each.
//
//	.ci/e2e/measure FOLDER
//
// plays the same to measure it: a table of direct calls beside those through
// carpool, of one build or of several.
//
// The tests make the namespaces carpool-e2e, carpool-e2e-system,
// carpool-e2e-moving, carpool-e2e-webhook and carpool-e2e-https, and delete them at
// the beginning, not at the end, so that one can look at what is left.
package e2e
