#!/bin/sh
# Fetches a file and puts it at PATH if it has the expected checksum. Of a tar archive one member can be put there.
# Arguments: URL PATH SHA256 MODE OWNER MEMBER PROTOCOLS STALL
#   SHA256: of what the URL serves. MEMBER: "" for a plain file.
#   PROTOCOLS: as in curl's --proto; a redirect cannot leave them.
#   STALL: the download ends when nothing arrives for so many seconds; the whole may take as long as it takes.
# Standard input: a configuration for curl.
# Prints the SHA-256 of the new file. When a step fails, the old file is unchanged, and the code is 113.
. ./lib/files.sh
download() (
  enter "$2" && make_private download && fetch "$1" "$3" "$4" "$5" "$6" "$7" "$8" || exit "$NOTHING_CHANGED"
  mv -fT -- new "../$name" || exit "$NOTHING_CHANGED"
  sync -- ..
  echo "${found%% *}"
)
# fetch URL SHA256 MODE OWNER MEMBER PROTOCOLS STALL: makes the file "new".
fetch() {
  url=$1 sha256=$2 mode=$3 owner=$4 member=$5 protocols=$6 stall=$7
  umask 077
  curl -fsSL -K - --proto "=$protocols" --retry 3 --connect-timeout 10 \
    --speed-limit 1 --speed-time "$stall" -o fetched -- "$url" || return
  found=$(sha256sum < fetched) || return
  found=${found%% *}
  if [ "$found" != "$sha256" ]; then
    echo "$url has the SHA-256 $found, expected $sha256: nothing was replaced" >&2
    return 1
  fi
  if [ -n "$member" ]; then
    tar -xOf fetched -- "$member" > new || return
  else
    mv -- fetched new || return
  fi
  found=$(sha256sum < new) || return
  chown -h -- "$owner" new && chmod -- "$mode" new && sync -- new
}
download "$1" "$2" "$3" "$4" "$5" "$6" "$7" "$8"
