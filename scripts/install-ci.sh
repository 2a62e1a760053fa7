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
need ip iproute2           # routes, links and namespaces: what routing runs, and its tests
need /usr/sbin/nft nftables # the pod's table (a path: npm puts another program of this name on PATH)
need setcap libcap2-bin    # a ping that a container may not run
need ping iputils-ping     # traffic in the namespaces
need tcpdump tcpdump       # shows that nothing leaves in clear
need curl curl             # asks agents in their namespaces
need charon-systemd charon-systemd       # real tunnels in the namespaces
need swanctl strongswan-swanctl          # their orders
need /usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so libcharon-extra-plugins # ESP in user space
need /usr/lib/ipsec/plugins/libstrongswan-gcm.so libstrongswan-standard-plugins      # AES-GCM, ECP-384
need qemu-system-x86_64 qemu-system-x86  # runs a kernel with ESP where the machine's has none
need /usr/sbin/modprobe kmod             # that kernel loads its modules by it
need podman podman         # runs the image; kpt and kustomize call it
need buildah buildah       # builds it, and needs no container for that
need runc runc             # the runtime that scripts/container-setup.ts names
need gcc gcc               # builds the newer runc of the test cluster, with the two that follow
need pkg-config pkg-config
need /usr/include/seccomp.h libseccomp-dev
need /usr/lib/cni/ptp containernetworking-plugins # the nodes of the test cluster, and what kubelet and kube-proxy look for
need conntrack conntrack
need iptables iptables
need ethtool ethtool
need socat socat
need dig bind9-dnsutils    # asks a DNS server behind a Service
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
