#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks that the committed bindings in internal/bpf are what bpf/ compiles to, by generating them
# again in a copy of the tree. The work tree is only read, so uncommitted work is safe and counts.
set -euo pipefail

# Another clang makes other machine code from the same source. The bindings must be equal with any
# clang; the objects only with the one that made them.
readonly clang_version=19.1.7

cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

mkdir -p "$copy/internal"
cp go.mod go.sum "$copy"
cp -R bpf "$copy/bpf"
cp -R internal/bpf "$copy/internal/bpf"
# Nothing of the old output may stay behind and pass for new.
rm -f "$copy"/internal/bpf/*_bpfe[lb].go "$copy"/internal/bpf/*_bpfe[lb].o
(cd "$copy" && "${GO:-go}" generate ./internal/bpf)

status=0
while read -r file; do
    if cmp -s "internal/bpf/$file" "$copy/internal/bpf/$file"; then
        continue
    fi
    if [[ $file == *.o && -e internal/bpf/$file && -e $copy/internal/bpf/$file ]] &&
        [[ $(clang-19 --version) != *"version $clang_version"* ]]; then
        echo "check-generate: internal/bpf/$file differs, but clang here is not $clang_version: let it pass" >&2
        continue
    fi
    echo "check-generate: internal/bpf/$file is not what bpf/ compiles to" >&2
    if [[ $file == *.go ]]; then
        diff -uN "internal/bpf/$file" "$copy/internal/bpf/$file" | head -40 >&2 || true
    fi
    status=1
done < <(for dir in . "$copy"; do (cd "$dir/internal/bpf" && find . -type f -printf '%P\n'); done | sort -u)
if ((status)); then
    echo "check-generate: run make generate and commit the result" >&2
    exit 1
fi
while read -r page file; do
    if ! "${GO:-go}" run ./test/docs "$page" </dev/null | cmp -s "$file" -; then
        echo "check-generate: $file is not what it is made from: run make generate and commit the result" >&2
        exit 1
    fi
done < <(scripts/generated.sh)
echo "what is generated is what it is made from"
