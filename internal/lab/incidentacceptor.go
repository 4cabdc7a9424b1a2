package lab

import (
	"context"
	"time"
)

// acceptorIncidents are those in which it takes a closer look to see who accepts, and what keeps it from that.
func acceptorIncidents() []Incident {
	return []Incident{
		{
			Name: "diagnose-many-threads", Title: "one of many threads accepts, and sleeps", Finding: "accept_loop_blocked", Names: []string{"nanosleep"},
			Explain: "A server with listen(8) and 600 idle threads sleeps 2 s in nanosleep() after each accept() while 20 clients a second come.",
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				s, err := w.StartServer(ServerConfig{Comm: []byte("lab-threads"), Sleepers: 600,
					Listeners: []ListenConfig{{Addr: any4, Backlog: 8, Accept: true, Pause: 2 * time.Second}}})
				if err != nil {
					return nil, err
				}
				log("one of the 600 threads of process %d accepts, and sleeps 2 s after each accept()", s.PID)
				return w.steady(server4, 50*time.Millisecond, 1), nil
			},
		},
	}
}
