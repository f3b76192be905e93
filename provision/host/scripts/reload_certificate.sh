#!/bin/sh
# Makes nginx and the registry read the certificate again, and waits until it is served.
# Arguments: FULLCHAIN NAME PORT URL SECONDS NGINX
#   NAME: for the TLS handshake, or "". URL: the registry's /v2/. NGINX: its configuration's folder.
# A HUP ends the registry, and its supervisor starts it again. Until then its answers do not count.
. ./lib/services.sh
fullchain=$1 name=$2 port=$3 url=$4 limit=$5 nginx=$6
loopback=$(loopback_of "$url")
served() { timeout 5 openssl s_client -connect "$loopback:$port" ${name:+-servername "$name"} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256 2>/dev/null; }
status() { ask_service "$url" -o /dev/null -w '%{http_code}'; }
process() { gitlab-ctl status registry 2>/dev/null | sed -n 's/^run: registry: (pid \([0-9]*\)).*/\1/p'; }
wanted=$(openssl x509 -noout -fingerprint -sha256 -in "$fullchain") || exit 1
if [ -z "$(served)" ] || ! grep -rqsF -e "$fullchain" -- "$nginx"; then
  echo "GitLab is not configured for $fullchain yet: the next reconfigure reads it"
  exit 0
fi
answered=$(status) before=$(process) ends=$(( $(now) + limit ))
late() { [ "$(now)" -ge "$ends" ]; }
hup() {
  until output=$(gitlab-ctl hup "$1" 2>&1); do
    if late; then printf 'gitlab-ctl hup %s fails: %s\n' "$1" "$output" >&2; exit 1; fi
    sleep 0.5
  done
}
# certbot's hook may have reloaded both already.
if [ "$(served)" != "$wanted" ]; then
  hup nginx; hup registry
  until [ "$(served)" = "$wanted" ]; do
    if late; then
      echo "GitLab still serves another certificate than $fullchain, $limit s after gitlab-ctl hup nginx" >&2
      cat /var/log/gitlab/nginx/current /var/log/gitlab/nginx/error.log 2>/dev/null | grep -aF emerg | tail -n 2 >&2
      exit 1
    fi
    sleep 0.2
  done
  soon=$(( $(now) + 5 ))
  while [ -n "$before" ] && [ "$(process)" = "$before" ] && [ "$(now)" -lt "$soon" ]; do sleep 0.2; done
fi
case $answered in 401 | 502) ;; *) exit 0 ;; esac  # any other answer has another cause than the certificate
until [ "$(status)" = 401 ]; do
  if late; then
    [ "$answered" = 401 ] || exit 0
    echo "the registry does not come back after gitlab-ctl hup registry: /v2/ answers $(status) instead of 401" >&2
    exit 1
  fi
  sleep 0.2
done
