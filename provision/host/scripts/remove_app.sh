#!/bin/sh
# Stops and removes containers that have the app's label. Its deployment is no longer pending.
# Arguments: APP PENDING, then the containers.
. ./lib/docker.sh
. ./lib/pending.sh
app=$1 pending=$2
shift 2
for container; do
  ! belongs_to "$container" "$app" || { docker stop -- "$container" && docker rm -f -- "$container"; } >/dev/null || exit 1
done
clear_pending "$pending" "deploy-$app"
