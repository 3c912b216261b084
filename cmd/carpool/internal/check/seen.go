package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/seen"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// seenHosts prints the hosts that were asked for, as one line that allows them, or all that is known of them as JSON.
func seenHosts(ctx context.Context, from asked, asJSON bool, stdout, stderr io.Writer) error {
	var list seen.List
	if err := from.get(ctx, "/seen", &list); err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(stdout).Encode(list)
	}
	hosts := allowable(list.Origins)
	if len(hosts) == 0 {
		return errors.New("the app has asked for no host yet, and an empty CARPOOL_ALLOW_HOSTS allows any")
	}
	if !list.Complete {
		fmt.Fprintln(stderr, "carpool check: there were more hosts than carpool remembers, so this is only a part of them")
	}
	_, err := fmt.Fprintf(stdout, "CARPOOL_ALLOW_HOSTS=%s\n", strings.Join(hosts, ","))
	return err
}

// allowable returns the hosts of origins as patterns, each once. Addresses that are refused by default are left out.
func allowable(origins []seen.Origin) (hosts []string) {
	for _, o := range origins {
		host := o.Host
		if addr, err := netip.ParseAddr(host); err == nil {
			if policy.Addr(addr, true) != nil {
				continue
			}
			host = policy.HostPattern{Name: addr.String()}.String()
		}
		p, ok := policy.ParseHostPattern(host)
		if ok && !slices.Contains(hosts, p.String()) {
			hosts = append(hosts, p.String())
		}
	}
	return hosts
}
