// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// connect connects to the socket. What a user has in his directory may be a link to the socket of
// another's runtime, or to one that only root may speak to: there it must be a socket of his own,
// by its own name.
func (e Endpoint) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	if e.User == "" {
		return d.DialContext(ctx, "unix", e.Path)
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, e.Path,
		&unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: e.Path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: e.Path, Err: err}
	}
	if owner := strconv.FormatUint(uint64(st.Uid), 10); st.Mode&unix.S_IFMT != unix.S_IFSOCK ||
		owner != e.User {
		return nil, fmt.Errorf("connect to %s: it is no socket of user %s", e.Path, e.User)
	}
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
}
