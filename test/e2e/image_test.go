// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// imageName is what the image is called once it is imported.
const imageName = "synspy.test/e2e:1"

// writeImage writes an image of one layer, as an archive of the OCI's layout: a
// busybox, which it sleeps with by default, and the synspy under test, whose
// servers are the lab's. Both are static.
func writeImage(t testing.TB, path string) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range []string{"bin/", "proc/", "sys/", "dev/", "etc/", "tmp/"} {
		must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}))
	}
	for name, from := range map[string]string{"bin/busybox": busybox, "bin/synspy": program} {
		text, err := os.ReadFile(from)
		must(t, err)
		addFile(t, w, name, 0o755, text)
	}
	must(t, w.Close())

	file, err := os.Create(path)
	must(t, err)
	defer file.Close()
	image := tar.NewWriter(file)
	addFile(t, image, "oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	blob := func(kind string, content []byte) map[string]any {
		digest := fmt.Sprintf("%x", sha256.Sum256(content))
		addFile(t, image, "blobs/sha256/"+digest, 0o644, content)
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind,
			"digest": "sha256:" + digest, "size": len(content)}
	}
	config := blob("config.v1+json", asJSON(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/bin/busybox", "sleep", "600"}},
		"rootfs": map[string]any{"type": "layers",
			"diff_ids": []string{
				fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	}))
	manifest := blob("manifest.v1+json", asJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": config, "layers": []any{blob("layer.v1.tar", layer.Bytes())},
	}))
	manifest["annotations"] = map[string]string{"io.containerd.image.name": imageName}
	addFile(t, image, "index.json", 0o644,
		asJSON(t, map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}))
	must(t, image.Close())
	must(t, file.Close())
}

func addFile(t testing.TB, w *tar.Writer, name string, mode int64, content []byte) {
	t.Helper()
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode,
		Size: int64(len(content))}))
	_, err := w.Write(content)
	must(t, err)
}

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return text
}
