#!/bin/sh
# Installs packages in one transaction, all from the expected repository.
# Arguments: SECONDS STALL LIMIT ORIGIN ENVIRONMENT DOWNGRADE FIRST LAST, then the packages as apt takes them: NAME or
# NAME=VERSION.
#   SECONDS      how long to wait for other package managers
#   STALL        a download ends when nothing arrives for so many seconds; the whole may take as long as it takes
#   LIMIT        seconds for the installation, after everything was downloaded
#   ORIGIN       how the address of each package must begin, "" for any
#   ENVIRONMENT  NAME=value words for apt, quoted for the shell
#   DOWNGRADE    yes allows an older version
#   FIRST, LAST  shell text to run before and after the installation, or ""; a code of FIRST other than 0 ends the script
. ./lib/apt.sh
set -e
seconds=$1 stall=$2 limit=$3 origin=$4 environment=$5 downgrade=$6 first=$7 last=$8
shift 8
wait_for_apt "$seconds"
fetch_with_apt "$stall" update
wait_for_apt "$seconds"
# apt prints no address for a package in its archive of downloads: therefore it must not use that archive.
if ! uris=$(apt-get -qq install --print-uris --reinstall --allow-downgrades --allow-change-held-packages \
  -o Dir::Cache::archives=/nonexistent -y -- "$@"); then
  for package; do
    echo "${package%%=*} is offered as: $(apt-cache madison "${package%%=*}" | awk '{ printf sep $3; sep = ", " }')" >&2
  done
  exit 100
fi
[ -z "$origin" ] || for package; do
  uri=$(printf '%s\n' "$uris" | tr -d "'" | awk -v p="/${package%%=*}_" 'index($1, p) { print $1; exit }')
  case $uri in
    "$origin"*) ;;
    '') echo "no candidate for $package: neither $origin nor any other source has it" >&2; exit 100 ;;
    *) echo "$package would come from $uri instead of $origin" >&2; exit 100 ;;
  esac
done
[ "$downgrade" != yes ] || set -- --allow-downgrades -- "$@"
[ "$downgrade" = yes ] || set -- -- "$@"
set -- -o DPkg::Lock::Timeout="$seconds" -o Dpkg::Options::=--force-confold --allow-change-held-packages "$@"
fetch_with_apt "$stall" install -y --download-only "$@"
(eval "$first") || exit
wait_for_apt "$seconds"
[ -z "$environment" ] || eval "export $environment"
code=0
timeout -k 30 "$limit" apt-get -q install -y "$@" || code=$?
[ "$code" != 124 ] || echo "the installation did not end within $limit s" >&2
(eval "$last") || [ "$code" != 0 ] || code=1
exit "$code"
