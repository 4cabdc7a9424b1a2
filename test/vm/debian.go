// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// archive is one of the two places Debian publishes suites in. The zero value is
// the main one.
type archive int

const (
	mainArchive archive = iota
	security
)

// mirrorEnv lets a machine whose apt knows no Debian archive (a CI runner, say)
// name one.
func (a archive) mirrorEnv() string {
	if a == security {
		return "SYNSPY_DEBIAN_SECURITY_MIRROR"
	}
	return "SYNSPY_DEBIAN_MIRROR"
}

// errMirror is a mirror that is not known, not there, or does not answer well:
// what is in the cache may then do.
var errMirror = errors.New("debian mirror unusable")

// Where Debian's own keys lie, and the only program trusted to use them.
const (
	archiveKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	verifier       = "gpgv"
)

// mirrorURL takes the archive's address from this machine's apt configuration,
// so that none is ever written into the tree.
func mirrorURL(ctx context.Context, a archive) (string, error) {
	if url := os.Getenv(a.mirrorEnv()); url != "" {
		return strings.TrimSuffix(url, "/") + "/", nil
	}
	aptGet, err := findTool("apt-get")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, aptGet, "indextargets",
		"--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt-get for its archives: %w", err)
	}
	url, ok := chooseMirror(string(out), a)
	if !ok {
		return "", &hintError{
			err:  fmt.Errorf("%w: apt is not set up with this archive", errMirror),
			hint: "set " + a.mirrorEnv() + " to the archive's base URL",
		}
	}
	return url, nil
}

// chooseMirror picks from lines of "label|URL". Before the first apt-get update
// labels are empty, and only the URL can tell the archives apart.
func chooseMirror(lines string, a archive) (string, bool) {
	for line := range strings.Lines(lines) {
		label, url, _ := strings.Cut(strings.TrimSpace(line), "|")
		if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
			continue
		}
		got := mainArchive
		switch {
		case label == "Debian-Security", label == "" && strings.Contains(url, "security"):
			got = security
		case label != "Debian" && label != "":
			continue
		}
		if got == a {
			return strings.TrimSuffix(url, "/") + "/", true
		}
	}
	return "", false
}

// downloader gets files over HTTP, with the proxies the environment names.
type downloader struct {
	client *http.Client
	log    *slog.Logger
}

func newDownloader(log *slog.Logger) *downloader {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 30 * time.Second
	return &downloader{client: &http.Client{Transport: transport, Timeout: 15 * time.Minute},
		log: log}
}

// get downloads url to path. A sum, when given, must match; path appears only
// when all went well.
func (d *downloader) get(ctx context.Context, url, path, sum string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errMirror, err)
	}
	res, err := d.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", errMirror, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: get %s: %s", errMirror, url, res.Status)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".download-*")
	if err != nil {
		return fmt.Errorf("create download: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(file, hash), res.Body); err != nil {
		return fmt.Errorf("%w: get %s: %w", errMirror, url, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); sum != "" && got != sum {
		return fmt.Errorf("verify %s: SHA256 is %s, want %s", filepath.Base(path), got, sum)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("write download: %w", err)
	}
	return os.Rename(file.Name(), path)
}

// release downloads a suite's InRelease file and gives its signed text.
func (d *downloader) release(ctx context.Context, base, suite, dir string) (string, error) {
	path := filepath.Join(dir, suite+".InRelease")
	if err := d.get(ctx, base+"dists/"+suite+"/InRelease", path, ""); err != nil {
		return "", err
	}
	gpgv, err := exec.LookPath(verifier)
	if err == nil {
		_, err = os.Stat(archiveKeyring)
	}
	if err != nil {
		d.log.Warn("signature of the Debian suite not checked: install gpgv and debian-archive-keyring", "suite", suite)
		text, err := os.ReadFile(path)
		return string(text), err
	}
	signed := filepath.Join(dir, suite+".Release")
	_ = os.Remove(signed) // gpgv will not write over it
	var status, diagnosis bytes.Buffer
	cmd := exec.CommandContext(ctx, gpgv, "--keyring", archiveKeyring, "--status-fd", "1",
		"--output", signed, path)
	cmd.Stdout, cmd.Stderr = &status, &diagnosis
	// The exit status is no use: it is 2 when one of several signatures is by a
	// key newer than this machine's keyring.
	runErr := cmd.Run()
	if !goodSignature(status.String()) {
		return "", fmt.Errorf("verify signature of suite %s: %w: %s", suite, runErr,
			strings.TrimSpace(diagnosis.String()))
	}
	text, err := os.ReadFile(signed)
	if err != nil {
		return "", fmt.Errorf("read signed text of suite %s: %w", suite, err)
	}
	return string(text), nil
}

// goodSignature reads gpgv's status lines: one good signature and no bad one.
func goodSignature(status string) bool {
	good := false
	for line := range strings.Lines(status) {
		switch fields := strings.Fields(line); {
		case len(fields) < 2 || fields[0] != "[GNUPG:]":
		case fields[1] == "BADSIG":
			return false
		case fields[1] == "GOODSIG":
			good = true
		}
	}
	return good
}

// compareVersions orders Debian versions as dpkg does.
func compareVersions(ctx context.Context) (func(a, b string) int, error) {
	dpkg, err := findTool("dpkg")
	if err != nil {
		return nil, err
	}
	return func(a, b string) int {
		switch {
		case a == b:
			return 0
		case exec.CommandContext(ctx, dpkg, "--compare-versions", a, "lt", b).Run() == nil:
			return -1
		default:
			return 1
		}
	}, nil
}
