#!/bin/sh
# Fetches a file and puts it at PATH if it has the expected checksum. Of a tar archive one member can be put there.
# Arguments: URL PATH SHA256 MODE OWNER MEMBER PROTOCOLS
#   SHA256: of what the URL serves. MEMBER: "" for a plain file.
#   PROTOCOLS: as in curl's --proto; a redirect cannot leave them.
# Prints the SHA-256 of the new file. When a step fails, the old file is unchanged.
# Both temporary files are created anew, so that a planted symbolic link is not followed.
download() (
  url=$1 path=$2 sha256=$3 mode=$4 owner=$5 member=$6 protocols=$7
  dir=$(dirname -- "$path") || exit
  fetched=$dir/.$(basename -- "$path").download
  new=$dir/.$(basename -- "$path").provision
  mkdir -p -- "$dir" || exit
  trap 'rm -f -- "$fetched" "$new"' EXIT
  rm -f -- "$fetched" "$new" || exit
  umask 077
  set -C
  curl -fsSL --proto "=$protocols" --retry 3 --connect-timeout 10 -- "$url" > "$fetched" || exit
  found=$(sha256sum < "$fetched") || exit
  found=${found%% *}
  if [ "$found" != "$sha256" ]; then
    echo "$url has the SHA-256 $found, expected $sha256: nothing was replaced" >&2
    exit 1
  fi
  if [ -n "$member" ]; then
    tar -xOf "$fetched" -- "$member" > "$new" || exit
  else
    mv -- "$fetched" "$new" || exit
  fi
  found=$(sha256sum < "$new") || exit
  chown -- "$owner" "$new" || exit
  chmod -- "$mode" "$new" || exit
  sync -- "$new" || exit
  mv -f -- "$new" "$path" || exit
  sync -- "$dir"
  echo "${found%% *}"
)
download "$1" "$2" "$3" "$4" "$5" "$6" "$7"
