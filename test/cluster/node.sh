#!/bin/sh
# A node's first process, in network, mount, PID, UTS and IPC namespaces of its own: makes the node's folders, starts what runs on
# a node, and starts again what ends, as systemd would. Killed with -9 it takes all of them along: a node that crashed.
#
#   node.sh FOLDER NAME OVERLAY
#
# FOLDER holds what node.ts has written, and gets the logs. OVERLAY: the file of the network namespace that all nodes share.
set -eu
folder=$1 name=$2 overlay=$3

mount --make-rshared /
# Before /run becomes another one: that is where network namespaces have their files.
touch "$folder/overlay"
mount --bind "$overlay" "$folder/overlay"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock /run/cilium
for each in lib/cni lib/kubelet log/pods log/containers; do
  mkdir -p "/var/$each" "$folder/var/$each"
  mount --bind "$folder/var/$each" "/var/$each"
done
# kubelet sets these, for the whole machine. Here it finds files instead, with what the machine has.
for each in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  file=$folder/$(echo "$each" | tr / .)
  cat "/proc/sys/$each" >"$file"
  mount --bind "$file" "/proc/sys/$each"
done
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
# What each of them is called, and with what.
. "$folder/programs.sh"
wait
