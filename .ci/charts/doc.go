// Package charts tests the Helm charts and the admission policy that one of
// them makes, without a cluster:
//
//	cd .ci/charts && go test ./...
//
// Helm's own packages render and lint; the API server's own code compiles the
// policy, runs it on the pods of charts/testdata, and validates what comes out,
// Pod Security "restricted" included; the webhook runs as a process and is called over
// TLS, as the API server does; kubeconform checks all manifests against
// the schemas of the oldest and the newest Kubernetes that they are for.
//
// go test . -update writes the golden files anew.
package charts
