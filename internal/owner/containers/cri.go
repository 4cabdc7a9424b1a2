// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/synspy/synspy/internal/event"
)

// criRuntime is a CRI runtime.
type criRuntime struct {
	conn   *grpc.ClientConn
	client cri.RuntimeServiceClient

	mu   sync.Mutex
	name string // what it says it is
}

// maxMessage is what one container and one pod may take, in bytes.
const maxMessage = 1 << 20

// dialCRI does not connect yet.
func dialCRI(path string) (runtime, error) {
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the socket's permissions are what there is
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: callTime,
			Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1.6,
				Jitter: 0.2, MaxDelay: sickTime}}))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	return &criRuntime{conn: conn, client: cri.NewRuntimeServiceClient(conn)}, nil
}

func (r *criRuntime) close() error { return r.conn.Close() }

// ask reads the container of that ID, or the pod whose sandbox has it. Runtimes
// take an ID of the filter for a prefix.
func (r *criRuntime) ask(ctx context.Context, id string) (*Answer, error) {
	a := &Answer{}
	sandbox := id
	list, err := r.client.ListContainers(ctx,
		&cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: id}})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range list.Containers {
		if c.Id == id {
			a.Name, sandbox = c.Metadata.GetName(), c.PodSandboxId
		}
	}
	pods, err := r.client.ListPodSandbox(ctx,
		&cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{Id: sandbox}})
	if err != nil {
		return nil, fmt.Errorf("list pod sandboxes: %w", err)
	}
	for _, p := range pods.Items {
		if m := p.Metadata; p.Id == sandbox && m != nil {
			a.Pod = &event.Pod{Namespace: m.Namespace, Name: m.Name, UID: m.Uid,
				Container: a.Name}
		}
	}
	if a.Name == "" && a.Pod == nil {
		return nil, errUnknown
	}
	if a.Runtime, err = r.version(ctx); err != nil {
		return nil, fmt.Errorf("ask for the version: %w", err)
	}
	return a, nil
}

// version returns which of the runtimes known here it is.
func (r *criRuntime) version(ctx context.Context) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.name == "" {
		v, err := r.client.Version(ctx, &cri.VersionRequest{})
		if err != nil {
			return "", err
		}
		r.name = v.RuntimeName
	}
	switch name := strings.ToLower(r.name); name {
	case containerd, crio, docker:
		return name, nil
	default:
		return "", nil
	}
}
