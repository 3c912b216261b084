package bypass

import (
	"strings"

	"github.com/carpoolproxy/carpool/proxy/policy"
)

// Advice is what makes the programs of one runtime use carpool.
type Advice struct {
	// Runtime is the language, with the versions that this is for, and the libraries.
	Runtime string
	// Why is what it does without.
	Why string
	// Set are environment variables of the app's container, as NAME=value.
	Set []string
	// Note is what else there is to know; empty if nothing.
	Note string
}

// Advices returns what to set, by runtime, for a carpool that listens on this host and port. Those that meet it most
// often come first.
func Advices(host, port string) []Advice {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	proxy := "http://" + host + ":" + port
	upper, lower := "HTTP_PROXY="+proxy, "http_proxy="+proxy
	both := []string{upper, lower}
	return []Advice{
		{
			Runtime: "Node.js up to 20: http, got, node-fetch, superagent",
			Why:     "Its http module knows no proxy, and so none of the libraries on top of it does.",
			Set:     []string{upper, lower, "NODE_OPTIONS=--require=/carpool/preload.js"},
			Note: "The script comes from `carpool preload`, or from CARPOOL_PRELOAD_DIR=/carpool and a volume mounted " +
				"there in both containers. The built-in fetch is not covered.",
		}, {
			Runtime: "Node.js from 22.21 and 24.5: http, got, node-fetch, fetch",
			Why:     "It reads the variables only when told to.",
			Set:     []string{upper, lower, "NODE_USE_ENV_PROXY=1"},
			Note: "Not together with the libraries request and needle, which it breaks. An http.Agent of the app's own " +
				"goes past the proxy unless it is made with proxyEnv. Until 26.9 fetch sends plain HTTP through CONNECT, " +
				"which is tunnelled and not pooled.",
		}, {
			Runtime: "Node.js, any version: axios, request, needle",
			Why:     "They read the variables, unless the code says proxy: false or brings its own agent.",
			Set:     both,
		}, {
			Runtime: "Python: requests, urllib",
			Why:     "They read the variables, the one in lower case first.",
			Set:     both,
			Note:    "aiohttp does so only with ClientSession(trust_env=True); http.client never.",
		}, {
			Runtime: "Ruby: Net::HTTP",
			Why:     "It reads the variables, unless the code passes a proxy address of nil.",
			Set:     both,
		}, {
			Runtime: "Java",
			Why:     "It reads no environment variables for this.",
			Set: []string{"JAVA_TOOL_OPTIONS=-Dhttp.proxyHost=" + strings.Trim(host, "[]") + " -Dhttp.proxyPort=" + port +
				" -Dhttp.nonProxyHosts=localhost|127.*|[::1]|" + policy.Exemptions().NonProxyHosts()},
			Note: "HttpURLConnection and java.net.http.HttpClient follow it, the latter unless the code sets a proxy.",
		}, {
			Runtime: "Go: net/http",
			Why:     "It reads the variables, unless the code has a Transport without Proxy: http.ProxyFromEnvironment.",
			Set:     both,
			Note:    "Never for localhost.",
		}, {
			Runtime: ".NET: HttpClient; Rust: reqwest",
			Why:     "They read the variables, unless the code turns the proxy off.",
			Set:     both,
		}, {
			Runtime: "Any, where HTTP_PROXY names the company's proxy already",
			Why:     "Then the app calls that one, and carpool has nothing to do. carpool can send everything through it.",
			Set:     append(both, "CARPOOL_NEXT_PROXY=http://proxy.corp:8080", "CARPOOL_NEXT_PROXY_AUTH_FILE=/path/of/user:password"),
			Note: "The last two are for carpool's own container; without a password the last one is not needed. HTTPS_PROXY may " +
				"name carpool as well, and NO_PROXY what the app calls by itself.",
		}, {
			Runtime: "curl, wget, PHP with curl",
			Why:     "For plain HTTP they read the variable in lower case only.",
			Set:     []string{lower},
			Note:    "PHP's own streams (file_get_contents) never do.",
		},
	}
}
