#!/bin/sh
# Downloads a repository's OpenPGP key. Arguments: URL PATH FINGERPRINT…. Standard input: a configuration for curl.
# Of the keys that the URL serves, only those with an expected fingerprint are put into the file. apt would trust every
# key in it. The file is armoured anew: apt reads exactly the packets that were checked. Without an expected key the old
# file is unchanged. Only programs of coreutils and awk are needed.
# Source: RFC 9580, packets (4.2), fingerprints of version 4 keys (5.5.4.2), armour (6.2).
. ./lib/files.sh
set -e
url=$1 file=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
curl -fsSL -K - --proto =https --proto-redir =https --retry 3 --connect-timeout 10 --speed-limit 1 --speed-time 30 \
  --max-filesize 262144 -o "$work/served" -- "$url"
tr -d '\r' < "$work/served" | awk '
  /^-----BEGIN PGP PUBLIC KEY BLOCK-----$/ { inside = 1; next }
  inside && (/^-----END/ || /^=/) { exit }
  inside == 1 && /^$/ { inside = 2; next }
  inside == 2' > "$work/base64"
base64 -d < "$work/base64" > "$work/packets" 2>/dev/null && [ -s "$work/packets" ] ||
  { echo "$url serves no OpenPGP key: nothing was replaced" >&2; exit 1; }
# One line for each key: where it ends with all that belongs to it, its size up to there, and the same for its first packet.
od -An -v -tu1 < "$work/packets" | awk '
  { for (i = 1; i <= NF; i++) byte[n++] = $i }
  function number(at, count,  value) { value = 0; while (count-- > 0) value = value * 256 + byte[at++]; return value }
  function finish() { if (first != "") print at, at - first, packet }
  END {
    at = 0
    while (at < n) {
      head = byte[at]
      if (head < 128) exit 1
      if (head >= 192) {
        tag = head - 192; l = byte[at + 1]
        if (l < 192) { size = l; body = at + 2 }
        else if (l < 224) { size = (l - 192) * 256 + byte[at + 2] + 192; body = at + 3 }
        else if (l == 255) { size = number(at + 2, 4); body = at + 6 }
        else exit 1
      } else {
        tag = int((head - 128) / 4); width = head % 4
        if (width == 3) exit 1
        width = width == 2 ? 4 : width + 1
        size = number(at + 1, width); body = at + 1 + width
      }
      if (body + size > n) exit 1
      if (tag == 6) { finish(); first = at; packet = (body + size) " " size }
      at = body + size
    }
    finish()
  }' > "$work/keys" && [ -s "$work/keys" ] ||
  { echo "$url serves an OpenPGP key that cannot be read: nothing was replaced" >&2; exit 1; }
# cut_out END SIZE: the bytes before END.
cut_out() { head -c "$1" "$work/packets" | tail -c "$2"; }
: > "$work/kept"
unknown=
while read -r end size body_end body_size; do
  length="\\$(printf %03o $((body_size / 256 % 256)))\\$(printf %03o $((body_size % 256)))"
  # shellcheck disable=SC2059 # two octal escapes
  found=$({ printf '\231'; printf "$length"; cut_out "$body_end" "$body_size"; } | sha1sum)
  found=$(printf %s "${found%% *}" | tr a-f A-F)
  for expected; do
    [ "$found" != "$expected" ] || { cut_out "$end" "$size" >> "$work/kept"; continue 2; }
  done
  unknown="$unknown${unknown:+, }$found"
done < "$work/keys"
if [ ! -s "$work/kept" ]; then
  echo "$url serves the key $unknown, expected $*: nothing was replaced" >&2
  echo "if the publisher announced this key, put its file into the inventory as the repository's key in [apt]" >&2
  exit 1
fi
[ -z "$unknown" ] || echo "$url also serves the key $unknown, which is not expected: it was left out"
# gpg 2.2 refuses armour without its checksum, CRC-24.
crc=$((0xB704CE))
for byte in $(od -An -v -tu1 < "$work/kept"); do
  crc=$((crc ^ byte << 16))
  for _ in 1 2 3 4 5 6 7 8; do crc=$((crc << 1 ^ (crc >> 23 & 1) * 0x1864CFB)); done
done
crc="\\$(printf %03o $((crc >> 16)))\\$(printf %03o $((crc >> 8 & 255)))\\$(printf %03o $((crc & 255)))"
{
  printf '%s\n\n' '-----BEGIN PGP PUBLIC KEY BLOCK-----'
  base64 -w 64 < "$work/kept"
  # shellcheck disable=SC2059 # three octal escapes
  printf '=%s\n' "$(printf "$crc" | base64)"
  echo '-----END PGP PUBLIC KEY BLOCK-----'
} | replace_file "$file" 0644 '' '' no '' ''
