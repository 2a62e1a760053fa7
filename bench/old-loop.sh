#!/bin/sh
# The polling loop that endpoint-sync replaces, written anew for the benchmark from what is known of it: every 10 s kubectl
# and jq put the pod's and the peers' addresses into the CiliumEndpoint, and the peers' into ip-masq-agent's list.
# Environment: KUBECONFIG, NAMESPACE, POD, PEER_CIDRS (a JSON list), MASQ_NAMESPACE; kubectl and jq on PATH.
set -u

while sleep 10 && test -e "$KUBECONFIG"; do
  addresses=$(kubectl -n "$NAMESPACE" get pod "$POD" -o json |
    jq -c --argjson peers "$PEER_CIDRS" '[.status.podIPs[].ip, $peers[]] | map({ipv4: .})')
  kubectl -n "$NAMESPACE" patch ciliumendpoint "$POD" --type json \
    --patch "[{\"op\": \"replace\", \"path\": \"/status/networking/addressing\", \"value\": $addresses}]" >/dev/null
  config=$(kubectl -n "$MASQ_NAMESPACE" get configmap ip-masq-agent -o json |
    jq --argjson peers "$PEER_CIDRS" '.data.config | fromjson
      | {nonMasqueradeCIDRs: (.nonMasqueradeCIDRs + $peers | unique), masqLinkLocal} | tojson')
  kubectl -n "$MASQ_NAMESPACE" patch configmap ip-masq-agent --type merge --patch "{\"data\": {\"config\": $config}}" >/dev/null
done
