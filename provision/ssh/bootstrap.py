"""Starting the root shell: the script that a login runs, and the greeting that it answers with.

The script turns a login into a root shell that reads batches (frame.py). Its argv is constant. It is sent in
single quotes on a command line that the user's own login shell reads, which may be bash, dash, zsh, fish or csh.
Therefore it is one line without quotes, backslashes or exclamation marks.

It does the following, in this order:
1.  It prints `provision-ready UID` on stdout: sudo has read its password and consumes no more of our input.
2.  It drops lines until `provision-nonce NONCE LOCK HOLDER…` arrives. A password that a NOPASSWD sudo left unread is
    one of the dropped lines.
3.  With LOCK = lock it takes flock on the directory /var/lib/provision, without waiting. The kernel releases the lock
    when this shell ends. A step that still runs when the connection breaks keeps the shell and the lock until it
    ends or reaches its deadline. Without LOCK = lock nothing is written to the disk.
4.  It prints `NONCE greeting UID LOCKSTATE [HOLDER…]` on stdout and `NONCE greeting` on stderr.
5.  It runs batches until its input ends.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from provision.errors import BecomeError, HostFailed, Locked, ProvisionError
from provision.secret import mask

STATE_DIR = "/var/lib/provision"
GREETING = "greeting"
_STARTED = b"provision-ready "
_OUTPUT_LIMIT = 1 << 20  # bytes before the greeting; a shell that prints more never starts
_OUTPUT_KEPT = 4000  # bytes for each stream of what is printed before the greeting: login banners, sudo's messages

_PROLOGUE = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; LC_ALL=C.UTF-8; SSH_CONNECTION=$1; "
    "export PATH LC_ALL SSH_CONNECTION; unset ENV CDPATH LANGUAGE; umask 022; cd /; "
    "u=$(id -u); echo provision-ready $u; "
    "while read -r k m l w; do case $k in provision-nonce) break;; esac; done; "
    "case $k in provision-nonce) ;; *) exit 76;; esac; "
)
# Lock states: none, held, and those that end the shell: unprivileged, busy (held by another run), failed (see stderr).
_LOCK = (
    "d=/var/lib/provision; x=none; h=; "
    "case $u.$l in 0.lock) x=failed; "
    "if [ -d $d ] || mkdir -p -m 0700 $d; then exec 9<$d; flock -n 9; "
    "case $? in 0) x=held; { echo host-pid $$ $w >$d/lock; } 2>/dev/null;; "
    "1) x=busy; [ -r $d/lock ] && read -r h <$d/lock;; esac; fi;; "
    "0.*) ;; *) x=unprivileged;; esac; "
    'echo "$m greeting $u $x $h"; echo "$m greeting" >&2; '
    "case $x in none|held) ;; *) exit 75;; esac; "
)
# `dd` with fullblock and count_bytes takes exactly n bytes from a pipe (some `head -c` read ahead). The trailer shows
# that the whole script has arrived. 9>&-: no child inherits the lock.
# Descriptor 8 is our input. The reader of a batch (frame.py) reads at most one byte from it, the stop request. If the batch
# has ended before, the loop reads that byte as an empty line, and skips it. apt-lists names the package lists that this run
# has fetched (host/scripts/lib/apt.sh).
_LOOP = (
    "exec 8<&0; "
    "while read -r b d n; do "
    'case $b in "") continue;; esac; '
    "s=$(dd bs=65536 iflag=fullblock,count_bytes count=$n status=none 8<&- 9>&-); "
    'case $s in *"#$m") ;; *) break;; esac; '
    'printf %s "$s" 2>/dev/null 8<&- 9>&- | timeout -k 30 $d /bin/sh 9>&-; r=$?; s=; '
    'echo "$m $b.end $r"; echo "$m $b.end $r" >&2; done; '
    "case $x in held) rm -f /var/lib/provision/lock /var/lib/provision/apt-lists;; esac; exit 0"
)
SCRIPT = _PROLOGUE + _LOCK + _LOOP


def command_line(*, sudo: bool, password: bool) -> str:
    """The command for sshd to execute. `$SSH_CONNECTION` is passed as an argument, since sudo removes it."""
    become = ("sudo -k -S -p '' -- " if password else "sudo -n -- ") if sudo else ""
    return f'{become}/bin/sh -c {shlex.quote(SCRIPT)} provision "$SSH_CONNECTION"'


def first_line(nonce: str, *, lock: bool, holder: str) -> bytes:
    """The line that the script waits for. `holder` describes this run to others that find the lock taken."""
    clean = "".join(letter if letter.isprintable() else " " for letter in holder)
    return f"provision-nonce {nonce} {'lock' if lock else 'nolock'} {clean}\n".encode("utf-8", "replace")


# What sudo and sudo-rs print when no password helps (LC_ALL is not set yet, so other languages get the general hint).
# Sources: sudo 1.9 (parse.c, logging.c, sudo.c), sudo-rs 0.2 (common/error.rs).
_REFUSALS = (
    (
        r"must have a tty|sorry, you must have",
        "requiretty is set in sudoers: add `Defaults:{user} !requiretty` there (with visudo), or log in as root",
    ),
    (
        r"not in the sudoers file|may not run sudo|is not allowed to (?:execute|run)|i'm sorry \S+\. i'm afraid",
        "allow {user} in sudoers (with visudo: `{user} ALL=(ALL) ALL`) or in the group sudo, or log in as root",
    ),
    (
        r"no new privileges|must be owned by uid 0|effective uid is not 0|setuid",
        "sudo itself cannot become root there: check its mode (4755, owner root), nosuid and NoNewPrivileges",
    ),
)


@dataclass
class Handshake:
    """What the script has answered so far on stdout (stream 0) and stderr (stream 1), and the error when it failed.

    It is checked when the first results arrive, so that it costs no round trip of its own.

    host, user   for messages
    nonce        see frame.py
    sudo         whether sudo starts the shell
    password     whether sudo is given a password
    """

    host: str
    user: str
    nonce: str
    sudo: bool
    password: bool
    _greeted: set[int] = field(default_factory=set)
    _lock_state: str = ""
    _uid: str = ""
    _holder: str = ""
    _output: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    _sizes: list[int] = field(default_factory=lambda: [0, 0])
    shell_started: bool = False
    """Whether the root shell has started: sudo has read its password."""

    def add_output(self, stream: int, piece: bytes) -> None:
        """Bytes before the greeting: their end is kept for an error message, and they are never read as a result.

        Raises BecomeError for more than _OUTPUT_LIMIT bytes.
        """
        output = self._output[stream]
        output.extend(piece)
        self.shell_started = self.shell_started or (stream == 0 and _STARTED in output)
        del output[:-_OUTPUT_KEPT]
        self._sizes[stream] += len(piece)
        if self._sizes[stream] > _OUTPUT_LIMIT:
            raise BecomeError(
                f"{self.host}: no root shell, but more than {_OUTPUT_LIMIT >> 20} MiB of output: {self._last_lines()[-200:]}",
                hint=f"check what the login shell of {self.user} prints: ssh USER@HOST true",
            )

    def add_greeting(self, stream: int, rest: str) -> None:
        """The greeting has arrived on a stream; `rest` is the rest of the line. Only the first one counts."""
        if stream in self._greeted:
            return
        self._greeted.add(stream)
        if stream == 0:
            self._uid, _, rest = rest.partition(" ")
            self._lock_state, _, self._holder = rest.partition(" ")

    def greeted_on(self, stream: int) -> bool:
        """Whether bytes on this stream are the output of commands from now on."""
        return stream in self._greeted

    @property
    def stderr_size(self) -> int:
        """How many bytes of stderr have arrived; it grows while sudo prints messages."""
        return self._sizes[1]

    @property
    def complete(self) -> bool:
        """Whether the greeting has arrived on both streams."""
        return len(self._greeted) == 2

    @property
    def failed(self) -> bool:
        """Whether the greeting reports that the shell has ended."""
        return self.complete and self._lock_state not in ("none", "held")

    def check(self) -> None:
        """Raise the error that the greeting reports: Locked, BecomeError or HostFailed."""
        if not self.failed:
            return
        if self._lock_state == "busy":
            holder = self._holder.strip() or "its details are not recorded"
            raise Locked(
                f"{self.host}: another run holds the host's lock ({holder})",
                hint="wait for it to end; if its controller is gone, kill that host-pid on the host",
            )
        if self._lock_state == "unprivileged":
            raise BecomeError(
                f"{self.host}: {self.user} has user id {self._uid}, but root is required",
                hint="set become = true in [ssh] to use sudo, or log in as root",
            )
        raise HostFailed(
            f"{self.host}: the lock on {STATE_DIR} cannot be taken: {self._last_lines() or 'no output'}",
            hint="check that /var/lib is writable and not full, and that flock (util-linux) is installed",
        )

    def exited(self, code: int | None) -> ProvisionError:
        """The error for a shell that ended before its greeting: sudo refused, or the user has no usable shell."""
        if self.sudo and self.password:
            return self.password_refused(code)
        output = f": {self._last_lines()}" if self._last_lines() else ""
        if self.sudo:
            return self._sudo_refusal(code) or BecomeError(
                f"{self.host}: sudo does not give {self.user} a root shell without a password{output}",
                hint="give the password with -K or become_password, or allow NOPASSWD in sudoers",
            )
        return BecomeError(
            f"{self.host}: the login shell of {self.user} exited at once (exit code {code}){output}",
            hint="check that this user can run a command: ssh USER@HOST true",
        )

    def password_refused(self, code: int | None = None) -> BecomeError:
        """The error for a sudo that was given the password and started no shell; `code` is its exit code, if known."""
        output = f" (output: {self._last_lines()})" if self._last_lines() else ""
        return self._sudo_refusal(code) or BecomeError(
            f"{self.host}: sudo refused the password for {self.user}{output}",
            hint="give the correct password with -K or become_password, or allow NOPASSWD in sudoers",
        )

    def _sudo_refusal(self, code: int | None) -> BecomeError | None:
        """The error when no password helps: sudo is missing, wants a terminal, or does not allow this user root."""
        printed = self._output[1].decode("utf-8", "replace").lower()
        output = f": {self._last_lines()}" if self._last_lines() else ""
        if code == 127 or re.search(
            r"\bsudo: (?:command )?not found|command not found: sudo|unknown command: sudo", printed
        ):
            return BecomeError(f"{self.host}: sudo is not installed{output}", hint="install sudo, or log in as root")
        for pattern, hint in _REFUSALS:
            if re.search(pattern, printed):
                return BecomeError(f"{self.host}: sudo refuses {self.user}{output}", hint=hint.format(user=self.user))
        return None

    def timed_out(self, seconds: float) -> BecomeError:
        """The error for a greeting that did not arrive in time."""
        return BecomeError(
            f"{self.host}: no root shell within {seconds:g} s", hint="check on the host what sudo waits for"
        )

    def _last_lines(self) -> str:
        """The end of what was printed instead of the greeting: of stderr, else of stdout."""
        for output in (self._output[1], self._output[0]):
            lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
            lines = [line for line in lines if not line.startswith(_STARTED.decode())]
            if lines:
                return mask(" / ".join(lines[-3:]))
        return ""
