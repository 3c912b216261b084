package inject

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What an ordinary first container, one more port and one more option mean to
// programs around the pod and in it. The admission policy cannot tell; the
// chart's README does.

// defaultContainer is the annotation that names the container that kubectl logs
// and exec take. Without it they take the first.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// keepDefault lets kubectl go on taking the app, which is not the first any more.
// The annotation stands behind the status: uninject knows it by that.
func (p pod) keepDefault(app string) {
	annotations := get(get(p.root, "metadata"), "annotations")
	if app == "" || indexOf(annotations, defaultContainer) >= 0 {
		return
	}
	at := indexOf(annotations, statusAnnotation) + 2
	annotations.Content = slices.Insert(annotations.Content, at, scalar(defaultContainer), scalar(app))
}

// forgetDefault takes out what keepDefault put in, while carpool and the status
// are there. The author's own, if it cannot be told from that, says nothing that
// would not be so without it.
func (p pod) forgetDefault(s *sidecar) {
	annotations := get(get(p.root, "metadata"), "annotations")
	apps := get(get(p.root, "spec"), containers.name)
	if apps == nil || apps.Kind != yaml.SequenceNode || len(apps.Content) < 2 || !s.isOurs(apps.Content[0]) {
		return
	}
	behind := indexOf(annotations, statusAnnotation)+2 == indexOf(annotations, defaultContainer)
	if behind && text(annotations, defaultContainer) == text(apps.Content[1], "name") {
		remove(annotations, defaultContainer)
	}
}

// noteScrape tells of a pod that says to be scraped and not on which port.
func (p pod) noteScrape(s *sidecar) {
	annotations := get(get(p.root, "metadata"), "annotations")
	if text(annotations, "prometheus.io/scrape") != "true" || indexOf(annotations, "prometheus.io/port") >= 0 {
		return
	}
	ports := get(s.container, "ports")
	if ports == nil || len(ports.Content) == 0 {
		return
	}
	p.note("prometheus.io/scrape without prometheus.io/port: most configurations then scrape every port that a container declares, carpool's " +
		text(ports.Content[0], "containerPort") + " too: name the app's")
}

// loadsOwn finds options with which Node.js loads a script before the program.
var loadsOwn = regexp.MustCompile(`(^|\s)(-r|--require)[\s=]`).MatchString

// noteProxy tells of a container that has a proxy of its own, and how carpool is chained
// to that. What may be a user and a password is not repeated.
func (p pod) noteProxy(container *yaml.Node, s *sidecar) {
	env := get(container, "env")
	at := slices.IndexFunc(s.env, func(v variable) bool { return v.Name == "HTTP_PROXY" })
	if env == nil || at < 0 {
		return
	}
	for _, entry := range env.Content {
		value := text(entry, "value")
		if !strings.EqualFold(text(entry, "name"), "HTTP_PROXY") || value == s.env[at].Value || value == "" && get(entry, "valueFrom") == nil {
			continue
		}
		chain, secret := "CARPOOL_NEXT_PROXY=URL", "if it takes a password"
		if scheme, rest, ok := strings.Cut(value, "://"); ok {
			chain = "CARPOOL_NEXT_PROXY=" + scheme + "://" + rest[strings.LastIndex(rest, "@")+1:]
			if strings.Contains(rest, "@") {
				secret = "for its user and password"
			}
		}
		p.note(fmt.Sprintf("container %s has a proxy of its own, so its requests go past carpool: to send them through carpool and on to that "+
			"proxy, take %s out there, and set %s and, %s, CARPOOL_NEXT_PROXY_AUTH_FILE=FILE for carpool (--set or annotations; --secret brings the file)",
			text(container, "name"), text(entry, "name"), chain, secret))
		return
	}
}

// noteOptions tells what becomes of options that stand elsewhere: those of an
// image, which env overrides, and those behind which others are put.
func (p pod) noteOptions(s *sidecar, served []*yaml.Node) {
	for _, v := range s.env {
		if v.Extend != " " {
			continue
		}
		var without []string
		for _, c := range served {
			env := get(c, "env")
			at := -1
			if env != nil {
				at = slices.IndexFunc(env.Content, v.isThere)
			}
			if at < 0 {
				without = append(without, text(c, "name"))
				continue
			}
			if value := text(env.Content[at], "value"); loadsOwn(value) && !strings.Contains(value, v.Value) && strings.HasPrefix(v.Value, "--require") {
				p.note(fmt.Sprintf("container %s: %s has two --require now, of which Next.js 15 and early 16 keep one in their workers: "+
					"if this is one of them, do without preload", text(c, "name"), v.Name))
			}
		}
		if len(without) > 0 {
			p.note(fmt.Sprintf("%s overrides what the image of %s may have as ENV: if it has it, write it into env too, where inject extends it",
				v.Name, strings.Join(without, ", ")))
		}
	}
}
