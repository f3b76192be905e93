#!/bin/sh
# Removes a handler from the list of pending ones. Arguments: FILE NAME
. ./lib/pending.sh
clear_pending "$1" "$2"
