#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Succeeds where test/vm can find Debian's kernels: on Debian, where apt has a Debian archive besides its
# own, or where the environment names a mirror. Elsewhere (Ubuntu, say) it says how, and fails.
set -euo pipefail

if [[ ${SYNSPY_DEBIAN_MIRROR:-} ]]; then
    exit 0
fi
# Before its first update apt does not know the origin of its archives.
if [[ -r /etc/os-release ]] && grep -qx 'ID=debian' /etc/os-release; then
    exit 0
fi
# shellcheck disable=SC2016
if command -v apt-get >/dev/null &&
    grep -qx Debian <<<"$(apt-get indextargets --format '$(ORIGIN)' 'Created-By: Packages')"; then
    exit 0
fi
cat >&2 <<'EOF'
SKIPPED: the kernels of the virtual machines come from a Debian archive, and apt on this machine has
none. To run these tests too, name a mirror:
    SYNSPY_DEBIAN_MIRROR=<address of a Debian mirror> make test-vm
5.10 also needs SYNSPY_DEBIAN_SECURITY_MIRROR, the mirror of Debian's security archive.
EOF
exit 1
