#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# install-deps.sh GROUP...: install, through apt, the system packages a make target needs and this
# machine lacks. Prints each with its purpose first, and does nothing when nothing is missing. Where
# there is no apt it says what to install. NO_INSTALL=1 only lists, and fails when something is missing.
set -euo pipefail

readonly usage='usage: install-deps.sh demo|generate|lint|test|matrix|matrix-arm64|bench...'
here=$(cd "$(dirname "$0")" && pwd)
# nginx, haproxy and ip live where an ordinary user's PATH does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'deps: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# One line a package: Debian's name, what shows that it is there (a command, or one of several files), need,
# purpose.
# need is "must", or "may" for what is skipped where the distribution does not package it.
packages() {
    case $1 in
    demo)
        echo 'ca-certificates /etc/ssl/certs/ca-certificates.crt|/etc/pki/tls/certs|/etc/ssl/ca-bundle.pem must lets go download modules over HTTPS'
        ;;
    generate)
        packages demo
        echo 'clang-19 clang-19 must compiles bpf/ for the kernel'
        echo 'llvm-19 llvm-strip-19 must strips debug information from the BPF objects'
        ;;
    lint)
        packages demo
        echo 'clang-format-19 clang-format-19 must checks the style of bpf/'
        echo 'vagrant vagrant may checks the Vagrantfile'
        ;;
    matrix)
        packages demo
        echo 'qemu-system-x86 qemu-system-x86_64 must boots the kernels of the test matrix'
        echo 'busybox-static busybox must is the user space of those virtual machines'
        echo 'debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg may verifies the kernels downloaded'
        echo 'gpgv gpgv may verifies the kernels downloaded'
        echo 'cpio cpio must packs their initramfs'
        echo 'xz-utils xz must unpacks kernel packages and modules'
        echo 'zstd zstd must unpacks kernel packages and modules'
        ;;
    matrix-arm64)
        echo 'qemu-system-arm qemu-system-aarch64 must boots the arm64 kernels of the test matrix'
        ;;
    test)
        packages generate
        packages lint
        packages matrix
        echo 'tshark tshark must reads the packets that synspy writes, as Wireshark would'
        echo 'tcpdump tcpdump must runs next to synspy, as it does during incidents'
        echo 'nginx nginx must is a prefork listener to observe'
        echo 'haproxy haproxy must is a SO_REUSEPORT listener to observe'
        echo 'python3 python3 must is a slow listener to observe'
        echo 'containerd containerd must runs a pod to observe, and says what it is called'
        echo 'runc runc must runs the containers of that pod'
        echo 'nodejs node must is a listener and a cluster of processes to observe'
        echo 'systemd systemd-socket-activate must passes a listener to a server, as service managers do'
        echo 'chromium chromium must opens the HTML report, in which nothing may run'
        echo 'iproute2 ip must builds network namespaces, and its ss is compared with synspy'
        ;;
    bench)
        packages matrix
        echo 'bpftrace bpftrace may runs the script that synspy is compared with'
        ;;
    *)
        die "no group \"$1\"; $usage"
        ;;
    esac
}

installed() { # package evidence
    if [[ $1 == busybox-static ]] && command -v apt-get >/dev/null; then
        # The package "busybox" puts a dynamic one in the same place.
        [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]
    elif [[ $2 == /* ]]; then
        local file files
        IFS='|' read -ra files <<<"$2"
        for file in "${files[@]}"; do
            [[ ! -e $file ]] || return 0
        done
        return 1
    else
        command -v "$2" >/dev/null
    fi
}

available() { # package: does apt know a version of it?
    [[ $(apt-cache policy "$1" 2>/dev/null) == *'Candidate: '[!\(]* ]]
}

# Packages of servers start them as services, on ports that are not ours to take. While policy-rc.d
# says 101, they are only installed.
without_services() {
    local policy=/usr/sbin/policy-rc.d unit
    if [[ ! -e $policy ]]; then
        trap '"$here/as-root" rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' | "$here/as-root" tee "$policy" >/dev/null
        "$here/as-root" chmod 755 "$policy"
    fi
    "$@"
    if [[ -d /run/systemd/system ]]; then
        for unit in "${servers[@]}"; do
            "$here/as-root" systemctl disable --quiet "$unit" || true
        done
    fi
}

# What dpkg has to say is hundreds of lines; errors go to standard error.
apt() {
    "$here/as-root" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

(($# > 0)) || {
    say "$usage"
    exit 2
}

lines=$(for group in "$@"; do packages "$group"; done | awk '!seen[$1]++')
missing=() optional=() servers=()
while read -r package evidence need purpose; do
    if installed "$package" "$evidence"; then
        continue
    fi
    if [[ $need == may ]]; then
        optional+=("$package")
    else
        missing+=("$package")
    fi
    if [[ $package == nginx || $package == haproxy || $package == containerd ]]; then
        servers+=("$package")
    fi
    say "missing: $package, which $purpose"
done <<<"$lines"

if ((${#missing[@]} + ${#optional[@]} == 0)); then
    exit 0
fi
if [[ ${NO_INSTALL:-} ]]; then
    ((${#missing[@]} == 0)) || die "NO_INSTALL is set: install these yourself: ${missing[*]}"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    ((${#missing[@]} > 0)) || exit 0
    die "there is no apt here: install what corresponds to these Debian packages, then try again: ${missing[*]}"
fi

# The package lists are refreshed only for packages that have to come.
if ((${#missing[@]} > 0)); then
    say "refreshing apt's package lists"
    apt update
fi

wanted=()
for package in "${missing[@]}"; do
    available "$package" || die "this release has no package $package: \
use Debian 12, Ubuntu 24.04 or later, or put it on PATH yourself"
    wanted+=("$package")
done
for package in "${optional[@]}"; do
    if available "$package"; then
        wanted+=("$package")
    else
        say "apt knows no package $package: what needs it is skipped"
    fi
done
((${#wanted[@]} > 0)) || exit 0

say "installing with apt (this may take a minute or two): ${wanted[*]}"
if ((${#servers[@]} > 0)); then
    say "${servers[*]} will not be started or enabled as a service"
    without_services apt install -y --no-install-recommends "${wanted[@]}"
else
    apt install -y --no-install-recommends "${wanted[@]}"
fi
