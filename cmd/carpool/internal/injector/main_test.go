package injector_test

import (
	"encoding/base64"
	"testing"
)

func decoded(t *testing.T, text any) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text.(string))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
