#!/bin/sh
# Restarts the registry of GitLab on this host, and waits until it answers: what it writes at its start is in its storage then.
# Arguments: CONFIG RAILS, see lib/registry_storage.sh. A registry that does not come up is no failure: it may be down for long.
. ./lib/services.sh
. ./lib/registry_storage.sh
case $(gitlab-ctl status registry) in run:*) ;; *) echo 'the registry does not run: it is not started'; exit 0 ;; esac
gitlab-ctl restart registry || exit
use_own_registry "$1" "$2" || exit 0
last=$(($(now) + 60))
until curl -s -o /dev/null --noproxy '*' --max-time 5 -- "http://$address/"; do
  if [ "$(now)" -ge "$last" ]; then echo "the registry does not answer at $address"; exit 0; fi
  sleep 0.5
done
