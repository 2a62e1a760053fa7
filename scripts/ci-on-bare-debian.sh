#!/bin/sh
# Makes a bare Debian system of this machine's release, with Node, npm, Go and git, clones HEAD into it, runs CI there, and removes
# the system. Nothing that is installed on this machine is there, and no cache. As root; mmdebstrap is needed.
usage="usage: sh scripts/ci-on-bare-debian.sh [--cache FOLDER] [--keep] [-- COMMAND…]

  --cache FOLDER   use and fill this folder as ~/.cache/constellation-vpn; otherwise everything is built
  --keep           do not remove the system, and say where it is
  COMMAND…         in the clone, instead of .ci/run: npm ci is then up to it

Where packages come from is taken from this machine: sources of apt, settings of npm and Go, certificates, proxies."
set -eu

fail() {
  echo "ci-on-bare-debian: $1" >&2
  exit 2
}
cache= keep=
while [ $# -gt 0 ]; do
  case $1 in
    --help) echo "$usage" && exit 0 ;;
    --cache) [ $# -ge 2 ] && mkdir -p "$2" && cache=$(realpath -- "$2") && shift || fail '--cache takes a folder' ;;
    --keep) keep=yes ;;
    --) shift && break ;;
    *) fail "$1: unknown, see --help" ;;
  esac
  shift
done
[ $# -gt 0 ] || set -- bash .ci/run
[ "$(id -u)" = 0 ] || fail 'must be run as root'
for each in mmdebstrap node npm go git; do command -v "$each" >/dev/null || fail "$each is not on PATH"; done

repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
started=$(date +%s)
root=$(mktemp --directory /var/tmp/bare-debian.XXXXXX)
# What is mounted in it is so in another mount namespace, and out of reach from here.
trap '[ -n "$keep" ] || rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT TERM

# shellcheck source=/dev/null
. /etc/os-release
sources=$(find /etc/apt -name sources.list -o -path '*/sources.list.d/*.sources' -o -path '*/sources.list.d/*.list')
# shellcheck disable=SC2086 # a list of words
mmdebstrap --quiet --dpkgopt=force-unsafe-io --variant=minbase --include=ca-certificates,git "$VERSION_CODENAME" "$root" $sources

# Copies what is there of these.
give() { # FILE-OR-FOLDER…
  for each; do [ ! -e "$each" ] || cp --archive --parents "$each" "$root"; done
}
give /etc/apt/apt.conf.d /etc/resolv.conf /etc/hosts /etc/ssl/certs /usr/local/share/ca-certificates
# Go is not below /usr, where only-needs.ts would hide a mount.
npm=$(dirname "$(dirname "$(realpath "$(command -v npm)")")")
local=$root/usr/local
mkdir -p "$local/lib/node_modules" "$local/etc" "$root/opt/go" "$root/old" "$root/root/.cache/constellation-vpn"
cp --dereference "$(command -v node)" "$local/bin/node"
cp --recursive "$npm" "$local/lib/node_modules/npm"
for each in npm npx; do ln -s "../lib/node_modules/npm/bin/$each-cli.js" "$local/bin/$each"; done
for each in global user; do
  settings=$(npm config get "${each}config")
  case $each in global) target=$local/etc/npmrc ;; user) target=$root/root/.npmrc ;; esac
  [ ! -e "$settings" ] || cp "$settings" "$target"
done
git clone --quiet --no-hardlinks "$repository" "$root/srv/constellation-vpn"
echo "ci-on-bare-debian: $root made in $(($(date +%s) - started)) s"

# A variable a line, none with a line break in it.
variables=$(
  env | grep -iE '^(https?_proxy|no_proxy|npm_config_(registry|cafile|proxy|https_proxy|noproxy)|node_extra_ca_certs|ssl_cert_(file|dir)|curl_ca_bundle|git_ssl_cainfo)=' || :
  for each in GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOFLAGS; do echo "$each=$(go env $each)"; done
)
# Not chroot, which would forbid user namespaces. No PID namespace either: by the ids of processes, tests tell what another run on
# this machine has left behind from what is in use.
code=0
(
  IFS='
'
  # shellcheck disable=SC2086 # a list of lines
  exec env -i HOME=/root PATH=/opt/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CI=true $variables \
    unshare --mount --propagation private sh -euc '
      root=$1 go=$2 cache=$3
      shift 3
      mount --bind "$root" "$root"
      cd "$root"
      mount -t proc proc proc
      mount --rbind /sys sys
      mount --rbind /dev dev
      mount -t tmpfs -o mode=755 tmpfs run
      mount --bind -o ro "$go" opt/go
      [ -z "$cache" ] || mount --bind "$cache" root/.cache/constellation-vpn
      pivot_root . old
      umount --lazy /old
      cd /srv/constellation-vpn
      exec "$@"
    ' sh "$root" "$(go env GOROOT)" "$cache" "$@"
) || code=$?
[ -z "$keep" ] || echo "ci-on-bare-debian: the system is in $root"
echo "ci-on-bare-debian: exit code $code after $(($(date +%s) - started)) s"
exit "$code"
