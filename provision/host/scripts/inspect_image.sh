#!/bin/sh
# Prints the state of an image that we build, on this host and in the registry.
# Arguments: FINGERPRINT PUSH DUE BASE REPOSITORY USER TAGS HOSTS DIRECT, then the full references.
#   PUSH: yes or no. DUE: yes asks the registry also where this host does not have the image of this fingerprint.
#   BASE, HOSTS, DIRECT: see lib/registry.sh. TAGS: separated by spaces. Standard input: the password, one line.
# Exits with 114 if the registry or GitLab is starting. Prints
#   local FINGERPRINT ID DIGESTS…      for each reference that this host has
#   tag TAG DIGEST                     or `absent` or `? REASON` instead of the digest
#   docker …                           the reason why Docker cannot be used
. ./lib/registry.sh
fingerprint=$1 push=$2 due=$3 base=$4 repository=$5 user=$6 tags=$7 hosts=$8 direct=$9
shift 9
IFS= read -r password
code=0
command -v docker >/dev/null || { echo 'docker is not installed'; exit; }
answer=$(timeout 20 docker image inspect -f '{{with .Config.Labels}}{{with index . "provision.build"}}{{.}}{{end}}{{end}} {{.Id}}{{range .RepoDigests}} {{.}}{{end}}' "$@" 2>&1)
case $? in
  0) printf '%s\n' "$answer" | sed 's/^/local /' ;;
  *) case $answer in *[Nn]o\ such\ image*) ;; *) echo "docker does not answer: $answer"; exit ;; esac ;;
esac
[ "$push" = yes ] || exit 0
case $due$answer in
  *"$fingerprint"* | yes*)
    for tag in $tags; do
      found=$(digest_of "$base" "$repository" "$tag" "$user" "$password" "$hosts" "$direct")
      [ $? != 114 ] || code=114
      echo "tag $tag $found"
    done ;;
esac
exit "$code"
