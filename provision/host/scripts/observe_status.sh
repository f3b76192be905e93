#!/bin/sh
# What runs on this host. Arguments: FORMAT of `docker ps` for apps, APP_LABEL, then the units of systemd to report.
# Prints `unit NAME STATE`, `version NAME VERSION`, `disk PERCENT FREE_KB PATH`, `load ONE_MINUTE`, `last SECONDS` (since the
# last change that was recorded), `pending COUNT`, `service NAME STATE` of GitLab, and `app` lines in the FORMAT.
format=$1
label=$2
shift 2

for unit in "$@"; do
  state=$(systemctl is-active -- "$unit" 2>/dev/null)
  printf 'unit %s %s\n' "$unit" "${state:-unknown}"
done
for name in docker-ce docker.io gitlab-runner gitlab-ce gitlab-ee; do
  version=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$name" 2>/dev/null)
  case $version in 'installed '*) printf 'version %s %s\n' "$name" "${version#installed }" ;; esac
done
df -P / /var/lib/docker /var/opt/gitlab 2>/dev/null | awk 'NR > 1 && !seen[$6]++ { sub("%", "", $5); print "disk", $5, $4, $6 }'
read -r load _ </proc/loadavg && printf 'load %s\n' "$load"
home=/var/lib/provision
if [ -e "$home/state.json" ]; then
  printf 'last %s\n' "$(($(date +%s) - $(stat -c %Y "$home/state.json")))"
fi
if [ -s "$home/pending" ]; then
  printf 'pending %s\n' "$(grep -ac . "$home/pending")"
fi
if command -v gitlab-ctl >/dev/null; then
  timeout 20 gitlab-ctl status 2>/dev/null | awk -F': ' '/^(run|down)/ { print "service", $2, $1 }'
fi
if command -v docker >/dev/null; then
  timeout 20 docker ps -a --no-trunc --filter "label=$label" --format "app $format" 2>/dev/null || echo 'app docker does not answer'
fi
