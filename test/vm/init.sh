#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The guest's init: mounts what synspy and its tests look at, then runs commands
# that the host sends through a virtio port (session.go is the other end). The
# console is left to the kernel, whose messages may come at any byte.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root USER=root TERM=dumb
bb=/bin/busybox

$bb mkdir -p /proc /sys /dev /tmp /run /root /var/log /var/tmp
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
# Existing names, the caller's own programs, stay.
$bb --install -s 2>/dev/null

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpffs /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/netns /run/lock
ln -sfn /run /var/run
ln -sfn /proc/self/fd /dev/fd

hostname synspy-vm
ip link set lo up
ulimit -l unlimited
ulimit -n 65536

failed=0
while read -r module; do
    insmod "$module" || failed=$((failed + 1))
done </etc/vm/modules

# The port appears a moment after its driver.
port=
tries=0
while [ -z "$port" ] && [ $tries -lt 100 ]; do
    for name in /sys/class/virtio-ports/*/name; do
        [ -e "$name" ] && [ "$(cat "$name")" = synspy.agent ] || continue
        port=${name%/name}
        port=/dev/${port##*/}
    done
    [ -n "$port" ] || sleep 0.05
    tries=$((tries + 1))
done
if [ ! -c "$port" ]; then
    echo "init: no virtio port named synspy.agent"
    poweroff -f
fi

# A port can be opened once only, so output passes a pipe that commands may open
# again (as /dev/stdout, say) and that a daemon may keep without holding us up.
exec 3<>"$port"
mkfifo /run/agent.out
exec 4<>/run/agent.out
cat <&4 >&3 4>&- &

cd /root
read -r nonce <&3
read -r now _ </proc/uptime
printf '\n@@%s exit %s 0 %s\n' "$nonce" "$failed" "$now" >&4
while read -r line <&3; do
    printf %s "$line" | base64 -d >/run/agent.sh
    read -r start _ </proc/uptime
    /bin/sh /run/agent.sh </dev/null >/run/agent.out 2>&1 3>&- 4>&-
    status=$?
    read -r now _ </proc/uptime
    printf '\n@@%s exit %s %s %s\n' "$nonce" "$status" "$start" "$now" >&4
done
poweroff -f
