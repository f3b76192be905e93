#!/bin/sh
# From three bare throwaway hosts on this machine to a pushed image. Argument: the environment's bin folder.
set -eu
bin=$1
if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; command -v sudo >/dev/null || {
  echo 'the demo boots hosts and needs root: run it as root, or install sudo' >&2; exit 1; }; fi
print() { printf '\n== %s\n' "$*"; }

$sudo sh scripts/system.sh
mkdir -p .cache
print 'three real hosts: provision lab up'
$sudo "$bin/provision" lab up
print 'bare hosts to a pushed image: provision all -i inventories/lab.toml'
$sudo "$bin/provision" all -i inventories/lab.toml --report .cache/demo.html
print 'the same again: nothing to change'
$sudo "$bin/provision" all -i inventories/lab.toml --stats
print 'the result'
for runner in runner-1 runner-2; do
  echo "$runner: $($sudo "$bin/provision" lab ssh $runner 'sudo gitlab-runner list 2>&1 | grep -o "^[^ ]* *Executor=[a-z]*"')"
done
echo "gitlab: $($sudo "$bin/provision" lab ssh gitlab 'sudo ufw status | grep -c "ALLOW"') ufw rules, $(
  $sudo "$bin/provision" lab ssh gitlab 'curl -sk --noproxy \* -o /dev/null -w "%{http_code}" https://gitlab.lab.test:5555/v2/') from the registry's /v2/"
cat <<'EOF'

What to try next
  .cache/demo.html                                            the report of the first run
  provision registry firewall -i inventories/lab.toml \
    --set registry.external_url=https://gitlab.lab.test:5556 --check --diff
                                                              a plan for one change
  provision lab ssh gitlab                                    a shell on the GitLab host
  provision lab down                                          remove the hosts
(`provision` is .venv/bin/provision here. GitLab and gitlab-runner are stand-ins in the lab: docs/lab.md)
EOF
