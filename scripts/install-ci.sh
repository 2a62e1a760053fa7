#!/bin/sh
# Installs the Debian packages that the tests need, and of these only the missing ones.
# For CI and throw-away machines: it wants root and apt-get, and asks nothing.
set -eu

missing=
need() { # PATH-OR-COMMAND PACKAGE
  command -v "$1" >/dev/null || test -e "$1" || missing="$missing $2"
}
need openssl openssl       # makes certificates for the unit tests of the Kubernetes client
need setpriv util-linux    # ends etcd and kube-apiserver with the test that started them
need podman podman         # runs the image; kpt and kustomize call it
need buildah buildah       # builds it, and needs no container for that
need runc runc             # the runtime that scripts/container-setup.ts names
need mmdebstrap mmdebstrap # makes the base image where no registry can be reached
need /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring # checks what mmdebstrap downloads

if [ -z "$missing" ]; then
  echo 'install-ci: nothing is missing'
  exit 0
fi
echo "install-ci: installing$missing"
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
