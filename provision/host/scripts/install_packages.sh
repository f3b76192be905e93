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
# The code is NOTHING_CHANGED where neither FIRST nor dpkg ran.
. ./lib/files.sh
. ./lib/apt.sh
# uris_of PACKAGE…: what apt would download, one per line. apt prints no address for a package that it has downloaded before.
# Therefore it gets an empty archive of downloads.
uris_of() {
  apt-get -qq install --print-uris --reinstall --allow-downgrades --allow-change-held-packages \
    -o Dir::Cache::archives=/nonexistent -y -- "$@"
}
# reason_of_package FILE: what the last package's own script printed in apt's output, at most 8 lines. A script prints on
# standard output, among apt's progress; the error of dpkg on standard error contains the script's exit code alone.
reason_of_package() {
  awk '/^(Preparing to unpack|Unpacking|Setting up) / { found = 1; n = 0; next }
    /^Errors were encountered/ { exit }
    found && NF { line[n++] = $0 }
    END { if (n) print "the package'"'"'s script printed:"; for (i = n > 8 ? n - 8 : 0; i < n; i++) print line[i] }' "$1"
}
set -e
seconds=$1 stall=$2 limit=$3 origin=$4 environment=$5 downgrade=$6 first=$7 last=$8
shift 8
completed='' output='' ended=
trap 'ended=$?
  [ -z "$output" ] || rm -f -- "$output" "$output.code"
  [ "$ended" = 0 ] || [ "$completed$output" ] || exit "$NOTHING_CHANGED"' EXIT
wait_for_apt "$seconds"
complete_dpkg
refresh_lists "$stall"
wait_for_apt "$seconds"
if [ "$lists" = some ] && ! uris_of "$@" >/dev/null 2>&1; then  # another program may have removed lists meanwhile
  fetch_with_apt "$stall" update
fi
if ! uris=$(uris_of "$@"); then
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
check_space_for "$@" || exit 100
# apt removes the hold of packages that it is to change, also when that fails.
held=$(for package; do printf '%s\n' "${package%%=*}"; done | xargs apt-mark showhold 2>/dev/null) || held=
[ "$downgrade" != yes ] || set -- --allow-downgrades -- "$@"
[ "$downgrade" = yes ] || set -- -- "$@"
set -- -o DPkg::Lock::Timeout="$seconds" -o Dpkg::Options::=--force-confold --allow-change-held-packages "$@"
fetch_with_apt "$stall" install -y --download-only "$@"
output=$(mktemp /run/provision-apt.XXXXXX)
(eval "$first") || exit
wait_for_apt "$seconds"
[ -z "$environment" ] || eval "export $environment"
{ timeout -k 30 "$limit" apt-get -q install -y "$@" && echo 0 > "$output.code" || echo $? > "$output.code"; } | tee "$output"
code=$(cat "$output.code")
[ "$code" != 124 ] || echo "the installation did not end within $limit s" >&2
if [ "$code" != 0 ]; then
  reason_of_package "$output" >&2
  [ -z "$held" ] || printf '%s\n' "$held" | xargs apt-mark hold >/dev/null
fi
(eval "$last") || [ "$code" != 0 ] || code=1
exit "$code"
