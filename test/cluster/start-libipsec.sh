#!/bin/sh
# kernel-libipsec installs a route for each traffic selector, and a CHILD_SA fails where it finds no own address inside one. The
# pod has one of the pods' range, and none of the Services': one that no Service gets, being the last.
ip address replace 10.96.255.254/32 dev lo
# Only in a cluster with IPv6.
ip -6 route show default | grep -q . && ip address replace fd00:10:96::fffe/128 dev lo
exec start-charon
