#!/bin/sh
# Replaces a file atomically: checked, written to the disk, the previous content backed up.
# Arguments: PATH MODE OWNER CHECK KEEP EXPECTED BACKUPS COPY
#   The first seven as in lib/files.sh. COPY: where the rollback copy is kept (lib/rollback.sh), or "" for none.
# Standard input: the new content. Codes: 79, another program changed the file in the meantime; 113, nothing was changed.
. ./lib/files.sh
. ./lib/rollback.sh
earlier=yes
if [ -n "$8" ]; then
  has_copy "$8" || earlier=no
  keep_copy "$1" "$8" || exit "$NOTHING_CHANGED"
fi
replace_file "$1" "$2" "$3" "$4" "$5" "$6" "$7"
code=$?
case $code in 79 | "$NOTHING_CHANGED") [ "$earlier" = yes ] || drop_copy "$8" ;; esac
exit "$code"
