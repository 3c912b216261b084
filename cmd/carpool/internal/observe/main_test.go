package observe

import (
	"os"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }
