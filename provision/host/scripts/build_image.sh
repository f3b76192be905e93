#!/bin/sh
# Builds an image and pushes it under its references.
# Arguments: DOMAIN USER PUSH COUNT, then COUNT references, then the arguments of `docker build`. PUSH: yes or no.
# Standard input: the password, one line; then the packed context. Prints Docker's output.
. ./lib/docker.sh
use_temporary_login
domain=$1 user=$2 push=$3 count=$4
shift 4
references=
while [ "$count" -gt 0 ]; do references="$references $1"; shift; count=$((count - 1)); done
IFS= read -r password
for reference in $references; do require_reference "$reference"; done
login "$domain" "$user" "$password"
# A tag names one manifest, whatever the image store: with an attestation, the containerd store (Docker 29's default) would
# push an index, and another one for each build of the same content, since the attestation has times. The variable and not
# --provenance=false: the classic builder refuses the option. Source: docker/buildx, build/build.go.
export BUILDX_NO_DEFAULT_ATTESTATIONS=1
show docker build "$@" - ||
  fail 'docker build' "$(build_problem "$work/last")" 'fix the Dockerfile or the files that it copies, then rerun the command'
[ "$push" = yes ] || exit 0
for reference in $references; do
  show docker push "$reference" ||
    registry_fails "docker push $reference" "$(tail -n 3 "$work/last")" \
      "$(remedy push "$(cat "$work/last")" 'check that the registry can write to its storage (disk full?)')"
done
