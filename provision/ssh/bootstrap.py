"""From a login to a root shell that speaks the frame language (frame.py), with a constant argv.

The script stands in single quotes on a command line that the user's own login shell reads, be it bash,
dash, zsh, fish or csh: so it is one line without quotes, backslashes or exclamation marks.

What happens there, in order:
1.  `provision-ready UID` on stdout: sudo is past its password, and will eat no more of our input.
2.  Lines are dropped until `provision-nonce NONCE LOCK HOLDER…`; a password that a NOPASSWD sudo
    left unread is one of them.
3.  With LOCK = lock: flock on the directory /var/lib/provision, without waiting. The kernel frees it when
    this shell ends; a step still running when the connection breaks keeps the shell, and so the
    lock, until that step ends or its deadline comes. Without it nothing on the disk is touched.
4.  `NONCE hello UID LOCKSTATE [HOLDER…]` on stdout, `NONCE hello` on stderr.
5.  Batches, until the input ends.
"""

from __future__ import annotations

import shlex

READY = b"provision-ready "
STATE_DIR = "/var/lib/provision"

_OPENING = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; LC_ALL=C; SSH_CONNECTION=$1; "
    "export PATH LC_ALL SSH_CONNECTION; unset ENV CDPATH LANGUAGE; umask 022; cd /; "
    "u=$(id -u); echo provision-ready $u; "
    "while read -r k m l w; do case $k in provision-nonce) break;; esac; done; "
    "case $k in provision-nonce) ;; *) exit 76;; esac; "
)
# States: none, held, and those that end here: unprivileged, busy (somebody else's), failed (see stderr).
_LOCK = (
    "d=/var/lib/provision; x=none; h=; "
    "case $u.$l in 0.lock) x=failed; "
    "if [ -d $d ] || mkdir -p -m 0700 $d; then exec 9<$d; flock -n 9; "
    "case $? in 0) x=held; { echo host-pid $$ $w >$d/lock; } 2>/dev/null;; "
    "1) x=busy; [ -r $d/lock ] && read -r h <$d/lock;; esac; fi;; "
    "0.*) ;; *) x=unprivileged;; esac; "
    'echo "$m hello $u $x $h"; echo "$m hello" >&2; '
    "case $x in none|held) ;; *) exit 75;; esac; "
)
# `dd` with fullblock and count_bytes takes exactly n bytes off a pipe (some `head -c` read ahead). The trailer
# proves that the whole script arrived. 9>&- : no child inherits the lock.
_LOOP = (
    "while read -r b d n; do "
    "s=$(dd bs=65536 iflag=fullblock,count_bytes count=$n status=none 9>&-); "
    'case $s in *"#$m") ;; *) break;; esac; '
    'printf %s "$s" 2>/dev/null 9>&- | timeout -k 5 $d /bin/sh 9>&-; r=$?; s=; '
    'echo "$m $b.end $r"; echo "$m $b.end $r" >&2; done; '
    "case $x in held) rm -f /var/lib/provision/lock;; esac; exit 0"
)
SCRIPT = _OPENING + _LOCK + _LOOP


def command_line(*, sudo: bool, password: bool) -> str:
    """What is given to sshd to execute. `$SSH_CONNECTION` is handed through, since sudo drops it."""
    become = ("sudo -k -S -p '' -- " if password else "sudo -n -- ") if sudo else ""
    return f'{become}/bin/sh -c {shlex.quote(SCRIPT)} provision "$SSH_CONNECTION"'


def opening_line(nonce: str, *, lock: bool, holder: str) -> bytes:
    """The first line for the shell; `holder` is what a refused run is told about this one."""
    clean = "".join(letter if letter.isprintable() else " " for letter in holder)
    return f"provision-nonce {nonce} {'lock' if lock else 'look'} {clean}\n".encode("utf-8", "replace")
