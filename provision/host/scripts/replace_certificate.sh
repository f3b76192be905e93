#!/bin/sh
# Replaces a certificate and its key, both or neither.
# Arguments: FULLCHAIN KEY BACKUPS CERTIFICATE. CERTIFICATE: the new chain, in base64. Standard input: the new key.
. ./lib/files.sh
replace_certificate() (
  enter "$1" && make_private provision-old || exit "$NOTHING_CHANGED"
  # A second link to the old certificate needs no space. Where the key cannot be written, the certificate is restored from it.
  [ ! -e "../$name" ] || ln -P -- "../$name" old || exit "$NOTHING_CHANGED"
  if printf %s "$4" | base64 -d | replace_file "$path" 0644 root:root '' no '' "$3" &&
    replace_file "$2" 0600 root:root '' no '' "$3"; then
    exit 0
  fi
  if [ -e old ]; then mv -fT -- old "../$name"; else rm -f -- "../$name"; fi || exit
  exit "$NOTHING_CHANGED"
)
replace_certificate "$1" "$2" "$3" "$4"
