#!/bin/sh
# The same sixteen things as playbooks/workload.py, by hand: one shell script over plain ssh, on all hosts at once.
# Arguments: IDENTITY KNOWN_HOSTS USER, then ADDRESS:PORT of each host.
set -eu
files=$(cd "$(dirname "$0")/files" && pwd)
identity=$1 known_hosts=$2 user=$3
shift 3

# put PATH FILE: prints a command that writes the file's text to the path.
put() {
  printf 'mkdir -p "%s"\ncat > "%s" << "END OF FILE"\n' "${1%/*}" "$1"
  cat "$2"
  printf 'END OF FILE\n'
}

commands() {
  cat << 'COMMANDS'
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get install -qq -y docker-ce ufw > /dev/null
COMMANDS
  put /etc/docker/daemon.json "$files/daemon.json"
  put /etc/docker/certs.d/registry.bench.test:5000/ca.crt "$files/ca.crt"
  put /etc/gitlab-runner/template.toml "$files/template.toml"
  sed -n "s/^  \"\(.*\)\": \(.*[^,]\),\{0,1\}$/gitlab_rails['\1'] = \2/p" "$files/gitlab_rb.json" | while IFS= read -r line; do
    printf 'grep -qxF "%s" /etc/gitlab/gitlab.rb || echo "%s" >> /etc/gitlab/gitlab.rb\n' "$line" "$line"
  done
  cat << 'COMMANDS'
usermod -aG docker ubuntu
systemctl -q enable --now docker
for port in 22 80 443 5555; do ufw allow "$port/tcp" > /dev/null; done
ufw --force enable > /dev/null
COMMANDS
}

script=$(commands)
running=
for host; do
  printf '%s\n' "$script" | ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o ControlPath=none \
    -o UserKnownHostsFile="$known_hosts" -i "$identity" -p "${host##*:}" "$user@${host%:*}" sudo sh &
  running="$running $!"
done
for one in $running; do wait "$one"; done
