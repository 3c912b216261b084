// Package faults has no code. Its tests run carpool whole and give it what a pod
// may meet: churn, a rolling restart, shortages of descriptors and memory, a log
// that is not read, endless transfers, readers that do not read, SIGTERM. They
// are rows of docs/BEHAVIOUR.md.
package faults
