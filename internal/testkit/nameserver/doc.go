// Package nameserver is the name server of the tests: a real one, on UDP and TCP,
// whose zone and whose misdeeds a test decides, and which counts what it is asked.
//
//	s := nameserver.New(t)
//	s.Set("orders.test.", 5*time.Second, "127.0.0.5", "127.0.0.6")
//	s.Do(func(q nameserver.Query, r *nameserver.Reply) { r.Drop = q.Type == dnsmessage.TypeAAAA })
//	resolvConf := s.ResolvConf("search a.test b.test", "options ndots:5")
//
// No program links it.
package nameserver
