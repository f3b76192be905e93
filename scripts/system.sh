#!/bin/sh
# Installs the distribution's packages that the lab and the tests need. Run as root.
set -eu
packages="mmdebstrap systemd-container dpkg-dev zstd apt-utils gnupg openssh-server openssh-client nftables iproute2 ruby curl openssl pebble busybox jq nodejs perl squid git-lfs"
report() { printf '%s\n' "$*" >&2; }

[ "$(uname -s)" = Linux ] || { report "this needs Linux: hosts are booted with systemd-nspawn"; exit 1; }
[ "$(id -u)" = 0 ] || { report "this needs root: run it with sudo"; exit 1; }
command -v apt-get >/dev/null || { report "this needs Debian or Ubuntu; elsewhere, install these programs by hand: $packages"; exit 1; }

missing=
for package in $packages; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
report "installing:$missing"
# Services of installed packages, such as an SSH server, are not started on this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
exec 9>/run/lock/provision-apt
flock 9 # environment.sh may install a package at the same time
apt-get update -q >/dev/null || { report "apt-get update failed: check the network"; exit 1; }
# shellcheck disable=SC2086
apt-get install -qy --no-install-recommends $missing >/dev/null || { report "installing failed:$missing"; exit 1; }
