#!/bin/sh
# Runs the agent that the first argument names. A bundle's first line has Node's flags: scripts/build-agents.ts.
agents=
for bundle in /opt/constellation-vpn/*.mjs; do
  name=${bundle##*/}
  name=${name%.mjs}
  if [ "$name" = "${1-}" ]; then
    shift
    exec "$bundle" "$@"
  fi
  agents="$agents $name"
done

usage="The first argument names an agent, the others are its own. There are:$agents"
if [ "${1-}" = --help ]; then
  echo "$usage"
  exit 0
fi
echo "error: no agent is called '${1-}'. $usage" >&2
exit 64 # EX_USAGE
