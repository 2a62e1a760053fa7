#!/bin/sh
# A node's first process, in network, mount, PID, UTS and IPC namespaces of its own: makes the node's folders, starts what runs on
# a node, and starts again what ends, as systemd would. Killed with -9 it takes all of them along: a node that crashed.
#
#   node.sh FOLDER NAME
#
# FOLDER holds what node.ts has written, and gets the logs.
set -eu
folder=$1 name=$2

mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
for each in lib/cni lib/kubelet log/pods log/containers; do
  mkdir -p "/var/$each" "$folder/var/$each"
  mount --bind "$folder/var/$each" "/var/$each"
done
mkdir -p /etc/cni/net.d /opt/cni/bin
mount --bind "$folder/cni" /etc/cni/net.d
mount --bind "$folder/cni-bin" /opt/cni/bin
# kubelet sets these, for the whole machine. It finds files instead, with what the machine has; it alone, since a pod with a user
# namespace gets no /proc where something is mounted into the node's.
mkdir -p "$folder/sys"
settings="vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes"
for each in $settings; do cat "/proc/sys/$each" >"$folder/sys/$(echo "$each" | tr / .)"; done
cat >"$folder/apart.sh" <<END
mount --make-private /proc
for each in $settings; do mount --bind "$folder/sys/\$(echo "\$each" | tr / .)" "/proc/sys/\$each"; done
exec "\$@"
END
# A container with a user namespace gets the node's device instead of one of its own: for everybody, as the others have it.
[ -e "$folder/tun" ] || mknod -m 666 "$folder/tun" c 10 200
mount --bind "$folder/tun" /dev/net/tun
hostname "$name"

keep() { # LOG COMMAND…
  log=$folder/$1.log
  shift
  while :; do
    "$@" >>"$log" 2>&1 </dev/null || :
    echo "node.sh: $1 ended, starts again" >>"$log"
    sleep 0.5
  done
}
PATH=$folder/bin:$PATH
# What each of them is called, and with what.
. "$folder/programs.sh"
wait
