#!/bin/sh
# Installs the Debian packages that the tests need (scripts/needs.tsv), and of these only the missing ones.
# For CI and throw-away machines: it wants root and apt-get, and asks nothing.
set -eu
cd "$(dirname "$0")"

missing=
for package in $(grep -v '^#' needs.tsv | cut -f 2 | sort -u); do
  status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) || :
  [ "$status" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
  echo 'install-ci: nothing is missing'
  exit 0
fi
echo "install-ci: installing$missing"
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
