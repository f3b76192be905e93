#!/bin/sh
# From two bare throwaway hosts on this machine to an app that a pipeline released. Argument: the environment's bin folder.
set -eu
bin=$1
if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; command -v sudo >/dev/null || {
  echo 'the demo boots hosts and needs root: run it as root, or install sudo' >&2; exit 1; }; fi
print() { printf '\n== %s\n' "$*"; }
source=.cache/demo/hello_hapi
set -- -i inventories/demo.toml -i /var/lib/provision-lab/demo/overlay.toml
greeting() { $sudo "$bin/provision" lab ssh runner-1 --name demo 'curl -s --noproxy "*" http://localhost:3000/hello/demo'; }

$sudo sh scripts/system.sh
rm -rf "$source"
mkdir -p "${source%/*}"
cp -r examples/hello_hapi "$source"
print 'two bare hosts: provision lab up -i inventories/demo.toml'
$sudo "$bin/provision" lab up -i inventories/demo.toml
# The lab's Docker Hub builds an image when it is pulled. These two are needed later.
$sudo "$bin/python" -c '
from provision_lab.container_images import HUB
for name in ("docker:28.5.2-cli", "node:24-slim"):
    HUB[name].ensure()' &
images=$!
trap wait EXIT
print "everything, with a GitLab that is new: provision all $*"
$sudo "$bin/provision" all "$@" --report .cache/demo.html
wait "$images"
print 'the app'
greeting
print 'the same again: nothing to change'
$sudo "$bin/provision" all "$@" --stats
print 'another greeting in the source: pushed, built, tested, released, deployed'
sed -i 's/Hello, /Good morning, /' "$source/server.js" "$source/test/server.test.js"
$sudo "$bin/provision" all "$@"
greeting
print 'the result: provision status'
$sudo "$bin/provision" status "$@"
cat <<'EOF'

What to try next, each with -i inventories/demo.toml -i /var/lib/provision-lab/demo/overlay.toml
  provision images                           what the registry holds
  provision ci                               the pipeline of the project
  provision registry firewall --check --diff --set registry.external_url=https://gitlab.example.com:5556
                                             a plan for one change
and
  .cache/demo.html                           the report of the first run
  .cache/demo/hello_hapi                     the source: change it, and run `provision all`
  provision lab ssh gitlab --name demo       a shell on the GitLab host
  provision lab down --name demo             remove the hosts
(`provision` is .venv/bin/provision here. GitLab and gitlab-runner are stand-ins in the lab: docs/lab.md)
EOF
