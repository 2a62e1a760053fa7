#!/bin/sh
# Makes /image, the root folder of an image FROM scratch, of the files and folders that are named, the libraries that they
# link to, and what a scanner and a reader want of their Debian packages: the package list and the licences.
# For the first stage of agents/Containerfile and agents/strongswan/Containerfile.
set -eu

files="$* $(ldd "$@" 2>/dev/null | sed -n 's|^.*[[:space:]]\(/[^ ]*\) (0x[0-9a-f]*)$|\1|p' | sort -u)"

mkdir -p /image/usr/bin /image/usr/sbin /image/usr/lib /image/usr/lib64 /image/var/lib/dpkg /image/var/run /image/tmp
chmod 1777 /image/tmp
for folder in bin sbin lib lib64; do ln -s "usr/$folder" "/image/$folder"; done
# shellcheck disable=SC2086 # lists of words, here and below
cp -rL --parents -t /image $files /etc/passwd /etc/group /etc/nsswitch.conf /etc/os-release

# What dpkg does not know, as Node, brings its own licence. A package of two architectures is called name:architecture.
# shellcheck disable=SC2086
packages=$(realpath $files | xargs dpkg -S 2>/dev/null | sed 's/: .*//; s/, /\n/g' | sort -u)
# shellcheck disable=SC2086
dpkg --status base-files $packages >/image/var/lib/dpkg/status
for package in base-files $packages; do cp -L --parents -t /image "/usr/share/doc/${package%:*}/copyright"; done
