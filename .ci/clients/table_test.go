package clients

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of clients into the README")

// A row of the README's table of clients.
type row struct {
	client, set string
	https       string // what becomes of https; it begins with "pooled" where that is so
	// tests is which clients the row is about, by their names in the tests.
	tests string
}

var table = []row{
	{"axios 0.21 to 1.6, on Node.js 10 to 24", "`HTTP_PROXY`, and `HTTPS_PROXY` for https", "pooled", `^node\d+ axios-(0\.21|1\.6)$`},
	{"axios 1.21, request", "`HTTP_PROXY`, `HTTPS_PROXY`", "tunnelled", `^node\d+ (axios-latest|request)( keep-alive)?$`},
	{"`http`, got, needle 2, node-fetch, superagent on Node.js 10 to 26", "`HTTP_PROXY` and [the script](#nodejs)", "past carpool",
		`^preloaded (http\.get|http\.request|got-\d+|needle|node-fetch|superagent|aws-sdk-2)$`},
	{"`https`, axios, got, needle 2, node-fetch, request, superagent on Node.js 10 to 26", "the same, and `CARPOOL_PRELOAD_HTTPS=true`", "pooled", `^preloaded https `},
	{"`http`, got, node-fetch on Node.js from 22.21 and 24.5 on", "`HTTP_PROXY`, `HTTPS_PROXY`, `NODE_USE_ENV_PROXY=1`", "tunnelled", ` NODE_USE_ENV_PROXY$`},
	{"`fetch` of Node.js 22, 24 and 26", "`HTTP_PROXY`, `HTTPS_PROXY`, `NODE_USE_ENV_PROXY=1`", "tunnelled", ` fetch$`},
	{"undici 6 to 8, `fetch` of Node.js 18 and 20 by way of it", "`EnvHttpProxyAgent`, with `HTTP_PROXY` and `HTTPS_PROXY`; or `ProxyAgent`", "tunnelled", ` undici-\d (EnvHttpProxyAgent|ProxyAgent for each call)$`},
	{"curl, wget, PHP's curl", "`http_proxy`, `https_proxy`", "tunnelled", `^(curl|curl --proxytunnel|wget|php curl)$`},
	{"Python: requests, urllib, httpx", "`HTTP_PROXY`, `HTTPS_PROXY`", "tunnelled", `^python (requests|urllib|httpx)$`},
	{"Python: aiohttp", "the same, and `ClientSession(trust_env=True)`", "tunnelled", `^python aiohttp$`},
	{"Python: `http.client`", "`set_tunnel`, in the program", "tunnelled", `^python http\.client tunnel$`},
	{"Perl's LWP", "`http_proxy`, `https_proxy`, and `env_proxy` in the program", "tunnelled", `^perl LWP$`},
	{"Ruby's Net::HTTP", "`http_proxy`, `https_proxy`", "tunnelled", `^ruby$`},
	{"Go's net/http", "`HTTP_PROXY`, `HTTPS_PROXY`", "tunnelled", `^go( keep-alive)?$`},
	{"Java: HttpURLConnection, HttpClient", "`-Dhttp.proxyHost`, `-Dhttp.proxyPort`, and the same with `https`", "tunnelled", `^java( keep-alive| HttpClient)?$`},
}

// about reports whether the row is about a client.
func (r row) about(name string) bool { return regexp.MustCompile(r.tests).MatchString(name) }

// TestTheTableOfClientsIsWhatIsTested holds the README to the tests: each client
// that is tested has one row, each row a client, and what the rows say of https is
// what is tested.
func TestTheTableOfClientsIsWhatIsTested(t *testing.T) {
	pooledHTTPS := map[string]bool{} // by name
	for _, c := range matrix() {
		pooledHTTPS[c.name] = c.absoluteHTTPS
	}
	for _, library := range preloadLibraries {
		if name := "preloaded " + library; !strings.HasPrefix(library, "axios") && library != "request" {
			pooledHTTPS[name] = false // not tested there
		}
		pooledHTTPS["preloaded https "+library] = true
	}
	used := map[string]bool{}
	for name, pooled := range pooledHTTPS {
		var rows []string
		for _, r := range table {
			if !r.about(name) {
				continue
			}
			rows, used[r.client] = append(rows, r.client), true
			if says := strings.HasPrefix(r.https, "pooled"); says != pooled && !strings.HasPrefix(name, "preloaded") {
				t.Errorf("%s: https is pooled %v, and the table says %q", name, pooled, r.https)
			}
		}
		if len(rows) != 1 {
			t.Errorf("%s is in the rows %q, and is to be in one", name, rows)
		}
	}
	for _, r := range table {
		if !used[r.client] {
			t.Errorf("no client is tested for the row %q", r.client)
		}
	}
	checkReadme(t)
}

const (
	tableBegins = "<!-- clients: go test . -run TheTable -update -->\n"
	tableEnds   = "<!-- /clients -->\n"
)

// checkReadme holds that the README has the table.
func checkReadme(t *testing.T) {
	t.Helper()
	path := filepath.Join("..", "..", "README.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !found || !ends {
		t.Fatalf("%s has no place for the table: %s%s", path, tableBegins, tableEnds)
	}
	var b strings.Builder
	b.WriteString(before + tableBegins + "| client | what to set | https |\n|---|---|---|\n")
	for _, r := range table {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.client, r.set, r.https)
	}
	b.WriteString(tableEnds + after)
	switch {
	case b.String() == string(text):
	case *update:
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Error("the README's table of clients is not that of the tests: cd .ci/clients && go test . -run TheTable -update")
	}
}
