#!/bin/sh
# Asks the registry on this host whether it has images. The registry knows them wherever it keeps their names: in its storage,
# or in its metadata database. It is not asked while its storage is the one that is wanted.
# Arguments: CONFIG RAILS BUCKET ENDPOINT FOLDER. CONFIG: the registry's configuration. RAILS: gitlab.yml, see
# lib/registry_storage.sh. The others: the storage that is wanted.
# Prints `never` if the registry was never configured, `same` if its storage is the wanted one, `none`, `image NAME`, or
# `unknown REASON`.
. ./lib/services.sh
. ./lib/registry_storage.sh
config=$1
[ -e "$config" ] || { echo never; exit 0; }
storage=$(sed -n 's/^storage: *//p' "$config")
case $storage in
  *'"s3"'* | *'"s3_v2"'* | *'"s3aws"'*)
    place=''
    for key in bucket regionendpoint rootdirectory; do
      value=${storage##*"\"$key\":\""}
      [ "$value" != "$storage" ] || value=
      place="$place${value%%\"*} "
    done
    if [ "$place" = "$3 $4 $5 " ]; then echo same; exit 0; fi ;;
esac
# GitLab's package has a curl of its own.
command -v curl > /dev/null || PATH=$PATH:/opt/gitlab/embedded/bin
command -v curl > /dev/null || { echo 'unknown curl is not installed on the host'; exit 0; }
found=$(image_in "$config" "$2")
case $?:$found in
  0:) echo none ;;
  0:*) echo "image $found" ;;
  *) echo "unknown $found" ;;
esac
