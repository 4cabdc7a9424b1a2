// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

func TestMain(m *testing.M) {
	if server.HelperMain() {
		return
	}
	// No skip: a test run without the oracle proves nothing.
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr,
			"FAIL: internal/lab makes network namespaces and TUN devices: run its tests as root")
		os.Exit(1)
	}
	if os.Getenv(orphanEnv) != "" {
		os.Exit(orphanServer())
	}
	os.Exit(m.Run())
}

// orphanEnv makes the test binary a parent for TestServerDiesWithParent to kill.
const orphanEnv = "SYNSPY_LAB_ORPHAN"

// orphanServer starts a server, prints its process ID, and waits to be killed.
func orphanServer() int {
	w, err := world.New(context.Background())
	if err == nil {
		var server *server.Server
		if server, err = scenario.IdleServer(w, world.Any4, world.Backlog); err == nil {
			fmt.Println(server.PID)
			time.Sleep(time.Minute)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}
