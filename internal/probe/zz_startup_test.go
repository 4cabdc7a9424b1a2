package probe

import (
	"log/slog"
	"runtime"
	"testing"
	"time"
)

func TestStartup(t *testing.T) {
	t0 := time.Now()
	lap := func(s string) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("%-20s %v heap %d sys %d MB", s, time.Since(t0), m.HeapAlloc>>20, m.Sys>>20)
		t0 = time.Now()
	}
	f, err := Gather("", Auto)
	if err != nil {
		t.Fatal(err)
	}
	lap("gather")
	plan, err := Make(f, "auto")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(f, plan, Config{Rate: 100}, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	lap("open")
	h, err := p.Holders()
	if err != nil {
		t.Fatal(err)
	}
	lap("holders")
	if err := p.Start(h); err != nil {
		t.Fatal(err)
	}
	lap("start")
	p.Close()
	lap("close")
}
