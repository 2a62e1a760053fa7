#!/bin/sh
# A container that was restarted finds the kernel as a charon that crashed left it, since the network is the pod's, and charon
# does not look. Old states would carry traffic that it knows nothing of, until the other gateway forgets them; then traffic
# vanishes. The policies stay: without them it would leave in clear.
if answer=$(ip xfrm state count 2>&1) && count=${answer##* } && answer=$(ip xfrm state flush 2>&1); then
  echo "start-charon: $count kernel states of an earlier charon flushed, policies stay" >&2
  # The kernel loads what ESP takes with the first state, and charon does not wait for it. A state of nobody's, gone at once.
  cipher='aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128'
  # shellcheck disable=SC2086 # a list of words
  answer=$(ip xfrm state add src 127.0.0.1 dst 127.0.0.1 proto esp spi 0x1 mode tunnel $cipher 2>&1) ||
    echo "start-charon: this kernel does no ESP with AES-GCM ($answer): load the modules esp4, esp6 and gcm on the node (modprobe)" >&2
  ip xfrm state flush
else
  echo "start-charon: the kernel's states can't be flushed ($answer): give the container NET_ADMIN and the node a kernel with IPsec (modprobe xfrm_user esp4)" >&2
fi
exec charon-systemd
