// Package netns runs tests in a network namespace of their own. There is something in it on Linux only.
package netns
