#!/bin/sh
# A container that was restarted finds the kernel as a charon that crashed left it, since the network is the pod's, and charon
# does not look. Old states would carry traffic that it knows nothing of, until the other gateway forgets them; then traffic
# vanishes. The policies stay: without them it would leave in clear.
if answer=$(ip xfrm state count 2>&1) && count=${answer##* } && answer=$(ip xfrm state flush 2>&1); then
  echo "start-charon: $count kernel states of an earlier charon flushed, policies stay" >&2
else
  echo "start-charon: the kernel's states can't be flushed ($answer): give the container NET_ADMIN and the node a kernel with IPsec (modprobe xfrm_user esp4)" >&2
fi
exec charon-systemd
