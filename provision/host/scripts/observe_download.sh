#!/bin/sh
# Prints what is at PATH: `file`, then `MODE OWNER` and `SHA256  -`; or `other`; or `absent`.
# Then, for each thing that a download needs and the host lacks: `missing PACKAGE`.
# Arguments: PATH
if [ -f "$1" ]; then
  echo file
  stat -L -c '%04a %U:%G' -- "$1" && sha256sum < "$1" || exit
elif [ -e "$1" ]; then
  echo other
else
  echo absent
fi
command -v curl >/dev/null || echo 'missing curl'
[ -e /etc/ssl/certs/ca-certificates.crt ] || echo 'missing ca-certificates'
