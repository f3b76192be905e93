#!/bin/sh
# Replaces a file atomically: checked, written to the disk, the previous content backed up.
# Arguments: PATH MODE OWNER CHECK KEEP EXPECTED BACKUPS COPY
#   The first seven as in lib/files.sh. COPY: where the rollback copy is kept (lib/rollback.sh), or "" for none.
# Standard input: the new content. Code 79: another program changed the file in the meantime.
. ./lib/files.sh
. ./lib/rollback.sh
[ -z "$8" ] || keep_copy "$1" "$8" || exit
replace_file "$1" "$2" "$3" "$4" "$5" "$6" "$7"
