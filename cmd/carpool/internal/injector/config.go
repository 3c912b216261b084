package injector

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
)

// Config is the file that the chart writes, as JSON. Unknown fields are refused: the
// chart is of another version then.
type Config struct {
	// Options are those of the sidecar, by the names that annotations have.
	Options map[string]string `json:"options"`
	// Settings are carpool's, each a variable with CARPOOL_ in front of its name.
	Settings []struct{ Name, Value string } `json:"settings"`
	// Requests and Limits are for other resources than CPU and memory.
	Requests map[string]string `json:"requests"`
	Limits   map[string]string `json:"limits"`
	// CPULimitWhereRequired, RunAsUser and PullSecrets are as in inject.Options.
	CPULimitWhereRequired string   `json:"cpuLimitWhereRequired"`
	RunAsUser             string   `json:"runAsUser"`
	PullSecrets           []string `json:"pullSecrets"`
	// WhenMissing is what becomes of pods in a namespace that is to have settings of
	// its own and has none: Allow leaves them without carpool, Deny refuses them.
	WhenMissing string `json:"whenMissing"`

	// Listen is the address of the webhook, Admin that of health and metrics.
	Listen string `json:"listen"`
	Admin  string `json:"admin"`
	// Host is the name by which the API server calls.
	Host string `json:"host"`
	// Webhooks are the names in the MutatingWebhookConfiguration called Configuration.
	Configuration string   `json:"configuration"`
	Webhooks      []string `json:"webhooks"`
	// Namespace has the Secret in which the certificates are. No Secret: they are made
	// and published by somebody else, and are in the folder Certificates as tls.crt and
	// tls.key.
	Namespace    string `json:"namespace"`
	Secret       string `json:"secret"`
	Certificates string `json:"certificates"`
	// CountMissed makes it count pods that should have carpool and do not.
	CountMissed bool `json:"countMissed"`
}

// readConfig reads a Config and what it says of the sidecar.
func readConfig(text []byte) (c Config, o inject.Options, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, o, fmt.Errorf("%w (is the chart of another version?)", err)
	}
	errs := []error{
		need(c.Listen, "listen"), need(c.Admin, "admin"), need(c.Host, "host"),
		need(c.Configuration, "configuration"), need(strings.Join(c.Webhooks, ""), "webhooks"), need(c.Secret+c.Certificates, "secret or certificates"),
	}
	if c.WhenMissing != "Allow" && c.WhenMissing != "Deny" {
		errs = append(errs, fmt.Errorf("whenMissing: want Allow or Deny, not %q", c.WhenMissing))
	}
	o = inject.Defaults()
	for name, value := range c.Options {
		if err := o.Set(name, value); err != nil {
			errs = append(errs, fmt.Errorf("options: %s: %w", name, err))
		}
	}
	for _, s := range c.Settings {
		o.Settings[strings.TrimPrefix(s.Name, "CARPOOL_")] = s.Value
	}
	o.OtherRequests, o.OtherLimits = c.Requests, c.Limits
	o.CPULimitWhereRequired, o.RunAsUser, o.PullSecrets = c.CPULimitWhereRequired, c.RunAsUser, c.PullSecrets
	return c, o, errors.Join(errs...)
}

func need(value, name string) error {
	if value == "" {
		return fmt.Errorf("%s is missing", name)
	}
	return nil
}
