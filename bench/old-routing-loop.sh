#!/bin/sh
# The polling loop that routing replaces, written anew for the benchmark from what is known of it: every 10 s, one nsenter
# and one ip for each range, and the source check turned off at Cilium's agent.
# The loop called Cilium's own command line twice, a Go program of kubectl's size that is not to be had here: curl asks in its
# place, and with CLI set kubectl is started as often, doing nothing, for its weight.
# Environment: NETNS (path of the host's network namespace), POD_IP, PEER_CIDRS (separated by blanks), MTU, SOCKET
# (Cilium's), FLAG (the loop ends when
# this file is gone), CLI (path of kubectl, or nothing).
set -u

while test -e "$FLAG"; do
  for cidr in $PEER_CIDRS; do
    nsenter --net="$NETNS" ip route replace "$cidr" via "$POD_IP" mtu "$MTU"
  done
  curl -s --unix-socket "$SOCKET" "http://localhost/v1/endpoint/ipv4:$POD_IP" >/dev/null
  curl -s --unix-socket "$SOCKET" -X PATCH -H 'content-type: application/json' \
    -d '{"options":{"SourceIPVerification":"Disabled"}}' "http://localhost/v1/endpoint/ipv4:$POD_IP/config" >/dev/null
  if test -n "${CLI:-}"; then
    "$CLI" version --client >/dev/null
    "$CLI" version --client >/dev/null
  fi
  sleep 10
done
