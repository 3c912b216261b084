package names_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/internal/testkit/nameserver"
	"github.com/carpoolproxy/carpool/pool/names"
)

// resolve looks a name up, and returns its addresses in order.
func resolve(t *testing.T, ns *names.Names, host string) ([]netip.Addr, error) {
	t.Helper()
	n := ns.Name(host, nil)
	defer n.Release()
	s, err := n.Wait(t.Context())
	if err != nil {
		return nil, err
	}
	return s.Addrs, nil
}

func TestMisdeedsOfNameServers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do    func(nameserver.Query, *nameserver.Reply)
		class string
	}{
		"lies about the id":   {func(_ nameserver.Query, r *nameserver.Reply) { r.WrongID = true }, ""},
		"lies about the name": {func(_ nameserver.Query, r *nameserver.Reply) { r.WrongName = true }, ""},
		"garbage first": {func(q nameserver.Query, r *nameserver.Reply) {
			if q.Before == 0 {
				r.Raw = []byte("\xff\xffgarbage")
			}
		}, ""},
		"knows no EDNS": {func(q nameserver.Query, r *nameserver.Reply) {
			if q.Before == 0 {
				r.RCode = dnsmessage.RCodeFormatError
			}
		}, ""},
		"truncates": {func(_ nameserver.Query, r *nameserver.Reply) { r.Truncated = true }, ""},
		"truncates, and TCP is garbage": {func(q nameserver.Query, r *nameserver.Reply) {
			if r.Truncated = true; q.TCP {
				r.Raw = []byte("garbage")
			}
		}, "failure"},
		"refuses": {func(_ nameserver.Query, r *nameserver.Reply) { r.RCode = dnsmessage.RCodeRefused }, "failure"},
		"fails":   {func(_ nameserver.Query, r *nameserver.Reply) { r.RCode = dnsmessage.RCodeServerFailure }, "failure"},
		"no name": {func(_ nameserver.Query, r *nameserver.Reply) { r.RCode = dnsmessage.RCodeNameError }, "not found"},
		"silent":  {func(_ nameserver.Query, r *nameserver.Reply) { r.Drop = true }, "time-out"},
		"AAAA fails": {func(q nameserver.Query, r *nameserver.Reply) {
			if q.Type == dnsmessage.TypeAAAA {
				r.RCode = dnsmessage.RCodeServerFailure
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := nameserver.New(t)
			s.Set("one.test.", time.Minute, "192.0.2.1")
			s.Do(c.do)
			ns := newNames(t, func(cfg *names.Config) {
				cfg.ResolvConf, cfg.Hosts, cfg.Timeout = s.ResolvConf("search ."), "/dev/null", 2*time.Second
			})
			got, err := resolve(t, ns, "one.test")
			if class(err) != c.class {
				t.Fatalf("%v, %v", got, err)
			}
			if err == nil && !slices.Equal(got, addrs("192.0.2.1")) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestLongAnswersAreReadWhole(t *testing.T) {
	t.Parallel()
	s := nameserver.New(t)
	var many []string
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String())
	}
	s.Set("many.test.", time.Minute, many...)
	if got, err := resolve(t, asking(t, s), "many.test"); err != nil || len(got) != 200 {
		t.Errorf("%d addresses, %v", len(got), err)
	}
}

func TestAliasesAreFollowed(t *testing.T) {
	t.Parallel()
	s := nameserver.New(t)
	s.Set("one.test.", time.Minute, "192.0.2.1", "2001:db8::1")
	s.Alias("alias.test.", "one.test.", time.Minute)
	if got, err := resolve(t, asking(t, s), "alias.test"); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
}

// A name server whose port is closed costs no wait, and is asked again at once when
// it is back.
func TestANameServerThatIsNotThereIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	first, second := nameserver.New(t), nameserver.New(t)
	for _, s := range []*nameserver.Server{first, second} {
		s.Set("one.test.", time.Minute, "192.0.2.1")
	}
	first.Stop()
	ns := newNames(t, func(c *names.Config) {
		c.ResolvConf, c.Hosts = nameserver.ResolvConf(t, []string{"search ."}, first.Addr(), second.Addr()), "/dev/null"
	})
	if got, err := resolve(t, ns, "one.test"); err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	first.Start()
	if got, err := resolve(t, ns, "one.test."); err != nil || len(got) != 1 || first.Count("", dnsmessage.TypeA) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
}

// resolv.conf is read again when it has changed.
func TestResolvConfIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		s.say(func(a netip.AddrPort, _ string, kind dnsmessage.Type) names.Answer {
			if a != server(9) {
				return names.Answer{After: ms, Code: dnsmessage.RCodeServerFailure}
			}
			return answer(time.Minute, kind, four)
		})
		file := ""
		ns := scripted(t, s, func(c *names.Config) { file = c.ResolvConf })
		if _, err := resolve(t, ns, "one.test"); class(err) != "failure" {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("nameserver "+server(9).Addr().String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if _, err := resolve(t, ns, "one.test"); err != nil {
			t.Error(err)
		}
		if err := os.Remove(file); err != nil { // it is being written
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if _, err := resolve(t, ns, "two.test"); err != nil {
			t.Error(err)
		}
	})
}

func TestDescriptorsAreMadeRoomFor(t *testing.T) {
	s := nameserver.New(t)
	s.Set("one.test.", time.Minute, "192.0.2.1")
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Skip(err)
	}
	asked := make(chan bool, 100)
	ns := newNames(t, func(c *names.Config) {
		c.ResolvConf, c.Hosts, c.NSSwitch = s.ResolvConf("search ."), "/dev/null", "/dev/null"
		c.Room = func() bool {
			_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
			asked <- true
			return true
		}
	})
	ns.Explain(t.Context(), "warm.test") // the files are read
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1, Max: old.Max}); err != nil {
		t.Skip(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	if got, err := resolve(t, ns, "one.test"); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	testkit.Await(t, "room is asked for", asked)
}

func TestTheHostsFileCounts(t *testing.T) {
	t.Parallel()
	s := nameserver.New(t)
	s.Set("both.test.", time.Minute, "192.0.2.2")
	s.Set("server.test.", time.Minute, "192.0.2.3")
	for order, want := range map[string]map[string]string{
		"":                                       {"both.test": "192.0.2.1", "file.test.": "192.0.2.1", "server.test": "192.0.2.3"},
		"hosts: files dns":                       {"both.test": "192.0.2.1", "server.test": "192.0.2.3"},
		"hosts: dns [!UNAVAIL=return] files":     {"both.test": "192.0.2.2", "file.test": "192.0.2.1", "server.test": "192.0.2.3"},
		"hosts: files":                           {"both.test": "192.0.2.1", "server.test": ""},
		"hosts: dns":                             {"both.test": "192.0.2.2", "file.test": ""},
		"passwd: files\nhosts: files mymachines": {"both.test": "192.0.2.1", "server.test": "192.0.2.3"},
	} {
		dir := t.TempDir()
		write := func(name, text string) string {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return file
		}
		ns := newNames(t, func(c *names.Config) {
			c.ResolvConf, c.NSSwitch = s.ResolvConf("search ."), write("nsswitch.conf", order)
			c.Hosts = write("hosts", "# a comment\n192.0.2.1 Both.TEST file.test # more\nnonsense x.test\n192.0.2.1\tboth.test\n")
		})
		for host, want := range want {
			got, err := resolve(t, ns, host)
			if fmtAddrs(got) != want || (want == "") != (class(err) == "not found") {
				t.Errorf("%q: %s is %v, %v", order, host, got, err)
			}
		}
	}
}

func fmtAddrs(list []netip.Addr) string {
	var s []string
	for _, a := range list {
		s = append(s, a.String())
	}
	return strings.Join(s, " ")
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	c := names.ParseResolvConf("# nameserver 192.0.2.9\n; x\nsearch old.test\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver\n" +
		"nameserver nonsense\nnameserver [192.0.2.2]:5353\nnameserver 192.0.2.3\nsearch a.test . b.test.\n" +
		"options ndots:5 timeout:2 attempts:3 rotate single-request use-vc edns0 trust-ad")
	if got := fmtPorts(c.Servers); got != "192.0.2.1:53 [2001:db8::1]:53 192.0.2.2:5353" {
		t.Errorf("servers %s", got)
	}
	if strings.Join(c.Search, " ") != "a.test. b.test." || c.Ndots != 5 || c.Timeout != 2*time.Second || c.Attempts != 3 ||
		!c.Rotate || !c.OneByOne || !c.OnlyTCP {
		t.Errorf("%+v", c)
	}
	if c := names.ParseResolvConf("domain a.test\noptions ndots:99 timeout:x attempts:-1"); c.Ndots != 15 || c.Timeout != time.Second ||
		c.Attempts != 1 || fmtPorts(c.Servers) != "127.0.0.1:53 [::1]:53" || strings.Join(c.Search, " ") != "a.test." {
		t.Errorf("%+v", c)
	}
	for host, want := range map[string]string{
		"a":                             "a.a.test. a.b.test. a.",
		"a.b":                           "a.b. a.b.a.test. a.b.b.test.",
		"a.b.":                          "a.b.",
		"a..b":                          "",
		"":                              "",
		".":                             "",
		"-a":                            "",
		"a b":                           "",
		"1.2":                           "1.2.a.test. 1.2.b.test.", // itself it is no name but a number
		"_x._tcp.a":                     "_x._tcp.a. _x._tcp.a.a.test. _x._tcp.a.b.test.",
		"x.onion":                       "x.onion.a.test. x.onion.b.test.",
		"x.onion.":                      "",
		strings.Repeat("a", 64):         "",
		strings.Repeat("a.", 126) + "a": strings.Repeat("a.", 127),
		strings.Repeat("a.", 127) + "a": "",
	} {
		c := names.ParseResolvConf("search a.test b.test")
		if got := strings.Join(c.FullNamesOf(host), " "); got != want {
			t.Errorf("%q: %q", host, got)
		}
	}
}

func fmtPorts(list []netip.AddrPort) string {
	var s []string
	for _, a := range list {
		s = append(s, a.String())
	}
	return strings.Join(s, " ")
}

// RFC 6724, as far as it tells families apart.
func TestTheFamilyThatWorksComesFirst(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		addrs, want string
		sources     map[string]string
	}{
		"both work":               {"192.0.2.1 2001:db8::1", "2001:db8::1 192.0.2.1", map[string]string{"192.0.2.1": "192.0.2.9", "2001:db8::1": "2001:db8::9"}},
		"no IPv6":                 {"2001:db8::1 192.0.2.1", "192.0.2.1 2001:db8::1", map[string]string{"192.0.2.1": "192.0.2.9"}},
		"no IPv4":                 {"192.0.2.1 2001:db8::1", "2001:db8::1 192.0.2.1", map[string]string{"2001:db8::1": "2001:db8::9"}},
		"local IPv6 to the world": {"192.0.2.1 2001:db8::1", "192.0.2.1 2001:db8::1", map[string]string{"192.0.2.1": "192.0.2.9", "2001:db8::1": "fd00::9"}},
		"local IPv6":              {"fd00::1 10.0.0.1", "10.0.0.1 fd00::1", map[string]string{"10.0.0.1": "10.0.0.9", "fd00::1": "fd00::9"}},
		"order stays":             {"192.0.2.2 192.0.2.1 2001:db8::2 2001:db8::1", "192.0.2.2 192.0.2.1 2001:db8::2 2001:db8::1", nil},
		"one family":              {"192.0.2.2 192.0.2.1", "192.0.2.2 192.0.2.1", map[string]string{"192.0.2.1": "192.0.2.9"}},
	} {
		got := names.Prefer(addrs(strings.Fields(c.addrs)...), func(a netip.Addr) netip.Addr {
			if s := c.sources[a.String()]; s != "" {
				return netip.MustParseAddr(s)
			}
			return netip.Addr{}
		})
		if fmtAddrs(got) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// FuzzRead has the reader of answers meet what may come from anyone: it takes
// nothing but answers to its question, and addresses of sense.
func FuzzRead(f *testing.F) {
	const id, name = 0x1234, "one.test."
	header := dnsmessage.Header{ID: id, Response: true, RecursionAvailable: true}
	question := dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	record := func(name string, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
		return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
	}
	for _, m := range []dnsmessage.Message{
		{Header: header},
		{Header: header, Questions: []dnsmessage.Question{question}},
		{Header: header, Questions: []dnsmessage.Question{question}, Answers: []dnsmessage.Resource{
			record(name, 30, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("two.test.")}),
			record("two.test.", 1<<31, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}),
			record("two.test.", 20, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("::ffff:192.0.2.1").As16()}),
		}},
		{Header: dnsmessage.Header{ID: id, Response: true, Truncated: true, RCode: dnsmessage.RCodeServerFailure}, Questions: []dnsmessage.Question{question}},
		{Header: header, Questions: []dnsmessage.Question{question}, Authorities: []dnsmessage.Resource{
			record(name, 30, &dnsmessage.SOAResource{NS: question.Name, MBox: question.Name, MinTTL: 5}),
		}},
	} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	query, err := names.Pack(id, name, dnsmessage.TypeA)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(query[2:])
	f.Fuzz(func(t *testing.T, b []byte) {
		addrs, ttl, ok := names.Read(b, id, name, dnsmessage.TypeA)
		if !ok {
			return
		}
		if ttl < 0 || ttl > 1<<31*time.Second {
			t.Errorf("TTL %v", ttl)
		}
		if len(b) < 12 || b[0] != 0x12 || b[1] != 0x34 || b[2]&0x80 == 0 {
			t.Errorf("taken for an answer: %x", b)
		}
		for _, a := range addrs {
			if !a.IsValid() || a.Is4In6() {
				t.Errorf("address %v", a)
			}
		}
		if _, _, ok := names.Read(b, id+1, name, dnsmessage.TypeA); ok {
			t.Error("taken for an answer with another id")
		}
		if _, _, ok := names.Read(b, id, "other.test.", dnsmessage.TypeA); ok {
			t.Error("taken for an answer to another name")
		}
	})
}
