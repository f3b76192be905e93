#!/bin/sh
# Sets mode and owner of a file or folder. Arguments: PATH MODE OWNER, as in lib/files.sh.
. ./lib/files.sh
set_access "$1" "$2" "$3"
