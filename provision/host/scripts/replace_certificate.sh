#!/bin/sh
# Replaces a certificate and its key, both or neither.
# Arguments: FULLCHAIN KEY BACKUPS CERTIFICATE. CERTIFICATE: the new chain, in base64. Standard input: the new key.
. ./lib/files.sh
fullchain=$(readlink -m -- "$1") || exit
# A hard link to the old certificate needs no space. Where the key cannot be written, the certificate is restored from it.
before=$fullchain.before
rm -f -- "$before"
[ ! -e "$fullchain" ] || ln -- "$fullchain" "$before" || exit 1
printf %s "$4" | base64 -d | replace_file "$1" 0644 root:root '' no '' "$3"
code=$?
if [ "$code" = 0 ]; then
  replace_file "$2" 0600 root:root '' no '' "$3"
  code=$?
fi
if [ "$code" = 0 ]; then rm -f -- "$before"
elif [ -e "$before" ]; then mv -f -- "$before" "$fullchain"
else rm -f -- "$fullchain"; fi
exit "$code"
