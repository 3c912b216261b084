package proxy

import "github.com/carpoolproxy/carpool/proxy/http1"

// repeatable reports whether a request can be carried out twice without harm,
// as far as its head says (RFC 9110 section 9.2.2). keyed says that upstreams
// honour Idempotency-Key.
func repeatable(r *http1.Request, keyed bool) bool {
	switch string(r.Method) {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	case "PUT", "DELETE":
		return !conditional(r)
	}
	return keyed && hasKey(r)
}

// conditional reports whether a request depends on the state that it changes:
// carried out twice it would be refused the second time, though the first one
// did what was asked (RFC 9110 section 13.1). All such fields begin alike, those
// of WebDAV and CalDAV too (RFC 4918 section 10.4, RFC 6638 section 8.3).
func conditional(r *http1.Request) bool {
	for i := range r.Fields {
		name := r.FieldName(&r.Fields[i])
		if len(name) >= 2 && http1.EqualFold(name[:2], "if") && (len(name) == 2 || name[2] == '-') {
			return true
		}
	}
	return false
}

// hasKey reports whether a request arrives with an Idempotency-Key: one that is
// empty says nothing, and one that Connection names goes no further.
func hasKey(r *http1.Request) bool {
	if !r.Has.Of(http1.IdempotencyKey) {
		return false
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if v := r.Value(f); f.Name == http1.IdempotencyKey && (f.Drop || len(v) == 0 || string(v) == `""`) {
			return false
		}
	}
	return true
}
