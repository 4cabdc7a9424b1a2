// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Listening is a listening TCP socket as inet_diag or /proc/net/tcp shows it.
// Pointers are nil where the source does not tell.
type Listening struct {
	Addr   netip.Addr
	Port   uint16
	Iface  *uint32 // index of the device it is bound to, 0 for none
	Inode  uint64  // of sockfs; 0 where no struct socket is left
	Cookie uint64  // 0 where unknown
	Len    uint32  // of the accept queue
	Limit  *uint32 // likewise
	Drops  *uint32 // sk_drops: of its whole life
	V6Only *bool   // of IPv6 sockets
	MPTCP  bool    // it listens for an MPTCP socket; false too where that is not told
}

// ListenSettings are the sysctls of a network namespace that bear on its listeners;
// nil where they could not be read.
type ListenSettings struct {
	Somaxconn       *uint32
	Syncookies      *uint32
	MaxSynBacklog   *uint32
	AbortOnOverflow *uint32
	SynackRetries   *uint32
	First           bool // it is the machine's first namespace
}

// ListeningSockets hands each of the listening TCP sockets of a network namespace to f, which must
// not keep it, and returns the namespace's settings. It enters the namespace by path with a thread
// that then ends, which takes CAP_SYS_ADMIN; an empty path is the caller's own.
func ListeningSockets(path string, inode uint64, f func(*Listening),
) (settings ListenSettings, err error) {
	err = InNetNS(path, inode, func() (err error) {
		settings = listenSettings()
		return eachListening(f)
	})
	return settings, err
}

// ListeningHere lists the listening TCP sockets of the calling thread's namespace.
func ListeningHere() (list []Listening, err error) {
	err = eachListening(func(l *Listening) { list = append(list, *l) })
	return list, err
}

// eachListening asks inet_diag, or else reads /proc/net.
func eachListening(f func(*Listening)) error {
	asked := false
	diag := diagListeners(func(l *Listening) {
		asked = true
		f(l)
	})
	if diag == nil || asked { // not twice
		return diag
	}
	list, err := ListeningFiles("/proc/thread-self/net")
	if err != nil {
		return errors.Join(diag, err)
	}
	for i := range list {
		f(&list[i])
	}
	return nil
}

// ListenSettingsOf reads the settings of a network namespace, by its path and inode, as
// [ListeningSockets] does.
func ListenSettingsOf(path string, inode uint64) (settings ListenSettings, err error) {
	err = InNetNS(path, inode, func() error {
		settings = listenSettings()
		return nil
	})
	return settings, err
}

// InNetNS runs f in a network namespace, by its path and inode, on a thread that then ends. It
// takes CAP_SYS_ADMIN; an empty path is the caller's own.
func InNetNS(path string, inode uint64, f func() error) (err error) {
	done := make(chan struct{})
	go onThread(func() {
		defer close(done)
		if path != "" {
			err = enterNetNS(path, inode)
		}
		if err == nil {
			err = f()
		}
	})
	<-done
	return err
}

// enterNetNS moves this thread, which must not be used for anything else.
func enterNetNS(path string, inode uint64) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	if have, err := OwnNetNS(); err != nil || have != inode {
		return errors.Join(ErrOtherNetNS, err)
	}
	return nil
}

func listenSettings() ListenSettings {
	return ListenSettings{
		Somaxconn:       sysctlNumber("/proc/sys/net/core/somaxconn"),
		Syncookies:      sysctlNumber("/proc/sys/net/ipv4/tcp_syncookies"),
		MaxSynBacklog:   sysctlNumber("/proc/sys/net/ipv4/tcp_max_syn_backlog"),
		AbortOnOverflow: sysctlNumber("/proc/sys/net/ipv4/tcp_abort_on_overflow"),
		SynackRetries:   sysctlNumber("/proc/sys/net/ipv4/tcp_synack_retries"),
		First:           sysctlNumber("/proc/sys/net/core/netdev_max_backlog") != nil, // no other has it: sysctl_core_net_init
	}
}

func sysctlNumber(path string) *uint32 {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return nil
	}
	value := uint32(n)
	return &value
}

// Of include/uapi/linux/inet_diag.h and sock_diag.h.
const (
	sockDiagByFamily = 20
	diagRequestSize  = 56 // struct inet_diag_req_v2
	diagMessageSize  = 72 // struct inet_diag_msg
	diagSkMeminfo    = 7
	diagV6Only       = 11
	diagULPInfo      = 19
	diagInfo         = 2
	meminfoDrops     = 8
	tcpSynRecv       = 3
	tcpListen        = 10
)

// diagListeners asks inet_diag for the listeners of this thread's namespace.
func diagListeners(f func(*Listening)) error {
	return diagDump(tcpListen, 0, 1<<(diagSkMeminfo-1)|1<<(diagInfo-1), func(answer []byte) {
		if l, ok := parseDiag(answer); ok {
			f(&l)
		}
	})
}

// diagDump asks inet_diag for the TCP sockets in a state, of a local port or of all (0), in this
// thread's namespace. extensions are bits of the attributes wanted. What each is given is
// overwritten by the next one.
func diagDump(state, port uint16, extensions byte, each func(answer []byte)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC,
		unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("list sockets: %w", err)
	}
	defer unix.Close(fd)
	buffer := make([]byte, diagBuffer)
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, unix.SizeofNlMsghdr+diagRequestSize)
		binary.NativeEndian.PutUint32(request, uint32(len(request)))
		binary.NativeEndian.PutUint16(request[4:], sockDiagByFamily)
		binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
		body := request[unix.SizeofNlMsghdr:]
		body[0], body[1], body[2] = family, unix.IPPROTO_TCP, extensions
		binary.NativeEndian.PutUint32(body[4:], 1<<state)
		binary.BigEndian.PutUint16(body[8:], port)
		err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == nil {
			err = readDump(fd, buffer, each)
		}
		if family == unix.AF_INET6 && errors.Is(err, fs.ErrNotExist) {
			break // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("list sockets: %w", err)
		}
	}
	return nil
}

// diagBuffer is what the kernel gives at once, at most, to who has room for it (netlink_recvmsg).
// It is why this does without the library that the rest of netlink is read by: a library asks how
// much there is first, and is given a tenth.
const diagBuffer = 32 << 10

var errTruncated = errors.New("an answer of the kernel is cut off")

// readDump hands over the answers to a request for many.
func readDump(fd int, buffer []byte, each func(answer []byte)) error {
	for {
		n, _, flags, _, err := unix.Recvmsg(fd, buffer, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case flags&unix.MSG_TRUNC != 0:
			return errTruncated
		}
		for b := buffer[:n]; len(b) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.SizeofNlMsghdr || length > len(b) {
				return errTruncated
			}
			answer := b[unix.SizeofNlMsghdr:length]
			switch kind := binary.NativeEndian.Uint16(b[4:]); kind {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				return answerError(answer)
			default:
				each(answer)
			}
			b = b[min((length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
		}
	}
}

// answerError is the error number that ends a dump; there may be none.
func answerError(answer []byte) error {
	if len(answer) < 4 {
		return nil
	}
	if number := int32(binary.NativeEndian.Uint32(answer)); number < 0 {
		return unix.Errno(-number)
	}
	return nil
}

// parseDiag reads a struct inet_diag_msg and its attributes.
func parseDiag(b []byte) (Listening, bool) {
	if len(b) < diagMessageSize || b[1] != tcpListen {
		return Listening{}, false
	}
	limit, iface := binary.NativeEndian.Uint32(b[60:]), binary.NativeEndian.Uint32(b[40:])
	l := Listening{
		Port: binary.BigEndian.Uint16(b[4:]), Iface: &iface,
		Cookie: uint64(binary.NativeEndian.Uint32(b[44:])) | uint64(binary.NativeEndian.Uint32(b[48:]))<<32,
		Len:    binary.NativeEndian.Uint32(b[56:]), Limit: &limit,
		Inode: uint64(binary.NativeEndian.Uint32(b[68:])),
	}
	if b[0] == unix.AF_INET {
		l.Addr = netip.AddrFrom4([4]byte(b[8:12]))
	} else {
		l.Addr = netip.AddrFrom16([16]byte(b[8:24])) // v4-mapped stays what it is: an IPv6 socket's
	}
	for kind, data := range attributes(b[diagMessageSize:]) {
		switch kind {
		case diagSkMeminfo:
			if len(data) >= 4*(meminfoDrops+1) {
				drops := binary.NativeEndian.Uint32(data[4*meminfoDrops:])
				l.Drops = &drops
			}
		case diagV6Only:
			if len(data) > 0 {
				only := data[0] != 0
				l.V6Only = &only
			}
		case diagULPInfo:
			l.MPTCP = bytes.Contains(data, []byte("mptcp\x00"))
		}
	}
	return l, true
}

// attributes are those of a netlink message, until one that is broken. The library's decoder
// allocates for each.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofNlAttr || length > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min((length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
		}
	}
}

// ListeningFiles reads the tcp and tcp6 of a /proc/PID/net: the same without
// limits, cookies and drops.
func ListeningFiles(dir string) ([]Listening, error) {
	var list []Listening
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && name == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("read listening sockets: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if l, ok := parseTCPLine(line); ok {
				list = append(list, l)
			}
		}
	}
	return list, nil
}

// parseTCPLine reads "sl: ADDR:PORT REMOTE 0A TX:RX timer retransmits uid timeout
// inode ...", hexadecimal but for the last ones. Addresses are words in this
// machine's order.
func parseTCPLine(line string) (Listening, bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != "0A" {
		return Listening{}, false
	}
	addr, port, _ := strings.Cut(f[1], ":")
	_, queue, _ := strings.Cut(f[4], ":")
	raw, err1 := hex.DecodeString(addr)
	number, err2 := strconv.ParseUint(port, 16, 16)
	length, err3 := strconv.ParseUint(queue, 16, 32)
	inode, err4 := strconv.ParseUint(f[9], 10, 64)
	if errors.Join(err1, err2, err3, err4) != nil || len(raw)%4 != 0 {
		return Listening{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	ip, ok := netip.AddrFromSlice(raw)
	return Listening{Addr: ip, Port: uint16(number), Len: uint32(length), Inode: inode}, ok
}
