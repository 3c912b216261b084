// Package charts embeds what the program shares with the Helm charts in this
// folder, so that both say the same.
package charts

import _ "embed"

// Sidecar is the one definition of the sidecar: the text of templates for
// text/template with one more function, toJson. Its first comment says what
// they take.
//
//go:embed carpool-lib/templates/_sidecar.tpl
var Sidecar string
