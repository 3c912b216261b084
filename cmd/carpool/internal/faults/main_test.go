package faults_test

import (
	"os"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
)

func TestMain(m *testing.M) { os.Exit(carpooltest.RunTests(m)) }
