package proxy

import "github.com/carpoolproxy/carpool/pool"

// answered counts a response passed on with this status, or, with 0, an answer
// that carpool had to make itself.
func answered(o *pool.Origin, status int) {
	if class := status / 100; class <= 5 {
		o.Tally(class)
	}
}
