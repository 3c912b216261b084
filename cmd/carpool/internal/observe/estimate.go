package observe

import (
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/pool"
)

// A model says how many connections carpool would have opened, with the settings that it has by default. It is about what
// pool does, a little too much rather than too little.
type model struct {
	age time.Duration // after which a connection is replaced; 0: never
}

// defaultModel is that of a carpool nobody has set anything of.
func defaultModel() model {
	cfg, _, err := config.Load(nil)
	if err != nil {
		panic("bug: the defaults are no settings: " + err.Error())
	}
	return model{age: cfg.MaxConnAge}
}

// opens returns how many connections carpool would have opened to one upstream in some time, to which the app has opened
// this many, atOnce of them at a time at most. Each is taken for one request, which leaves most to gain; carpool never
// opens more than the app.
func (m model) opens(opened float64, atOnce int, over time.Duration) float64 {
	if opened <= 0 || over <= 0 {
		return 0
	}
	needed := float64(max(atOnce, 1))
	rate := opened / over.Seconds()
	spread := pool.Openings(rate) // connections to reach all pods behind an address
	replaced := 0.0
	if m.age > 0 {
		replaced = needed / m.age.Seconds()
	}
	return min(opened, max(needed, max(spread, replaced)*over.Seconds()))
}
