"""The protocol of the root shell: batches of commands in, framed results out. Pure functions and values.

In, on the shell's standard input:

    BATCH DEADLINE LENGTH\\n     then LENGTH bytes of script, which end in `#NONCE`

The shell reads the whole script before it starts anything: when the connection breaks in the middle, no part of
the script runs. Then it pipes the script into `timeout -k 30 DEADLINE /bin/sh`: a constant argv, and a
process group of its own that ends with the deadline.

Out, on standard output and on standard error, after the bytes of each command:

    NONCE BATCH.INDEX CODE\\n    and at the end of the batch    NONCE BATCH.end CODE\\n

The nonce is 128 random bits that travel on standard input only. Therefore no output contains it, neither by chance nor
on purpose. The bytes between two markers are the unchanged output of one command. (A host's own root can read the nonce
and answer anything: markers in another order or form than promised end the session.) A command's standard input is a quoted
word in the script, and the shell's builtin printf writes it to the command: it is never in an argv, in the environment
or in a file.
"""

from __future__ import annotations

import base64
import re
import secrets
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from provision.errors import ProbeFailed
from provision.shell import Command, Result

END = "end"
OUTPUT_LIMIT = 64 << 20  # bytes that the commands of one batch may print together
STREAMED_KEPT = 1 << 20  # bytes that are kept of each output of a step whose output is passed on as it arrives
_MARKER_LIMIT = 4096  # bytes of a marker line; the longest one describes the holder of the lock
_CODE = re.compile(r"-?[0-9]{1,5}")
_PLAIN = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")  # what every sh accepts in a quoted word


def new_nonce() -> str:
    """128 random bits in hexadecimal, after a letter that is no hexadecimal digit.

    Therefore no prefix of the nonce is also a suffix of it, and output that ends in a part of the nonce is not mistaken
    for a marker.
    """
    return f"n{secrets.token_hex(16)}"


# Hundreds of small writes would be hundreds of packets to encrypt and decrypt: dd gathers them into blocks (fullblock,
# since the dd of uutils up to 0.8 garbles short reads otherwise). At the deadline dd, and the shells that wait for it,
# ignore TERM, so that the output that dd has gathered still arrives.
_DD = b'(trap "" TERM; exec dd bs=262144 iflag=fullblock status=none)'
# SIGTERM reaches all shells of a step. A shell runs its trap after the command it waits for: so the main shell waits for
# the step, and the step for a subshell that rolls back. One that ignores TERM is killed with the group.
_STOP = b"trap 'exit 143' TERM\n"
_GATHER = b"exec 3>&1 4>&2; trap : TERM\n{ trap : TERM; {\n" + _STOP
_GATHERED = b"} 2>&1 1>&5 5>&- 3>&- 4>&- | " + _DD + b" >&4 3>&- 4>&- 5>&-; } 5>&1 | " + _DD + b" >&3 3>&- 4>&-\n"


def encode(batch: int, commands: Sequence[Command], nonce: str, *, deadline: float, gather: bool = False) -> bytes:
    """The bytes that make the shell run `commands` in order within `deadline` seconds.

    `gather`: outputs arrive in blocks when all commands have ended, instead of at once. A background process that a
    command starts and that keeps its output open then delays the whole batch. Raises ValueError for a NUL in a script.
    """
    marker = f'm(){{ echo "{nonce} {batch}.$1 $2"; echo "{nonce} {batch}.$1 $2" >&2; }}\n'
    steps = [part for index, command in enumerate(commands) for part in (_step(command), b"m %d $?\n" % index)]
    steps = [_GATHER, *steps, _GATHERED] if gather else [_STOP, *steps]
    script = b"".join([marker.encode(), *steps, f"#{nonce}".encode()])
    return f"{batch} {max(deadline, 0.001):.3f} {len(script)}\n".encode() + script


def _step(command: Command) -> bytes:
    # `eval` of a quoted word: a syntax error or an open quote ends its own subshell only.
    script = command.script.encode("utf-8", "surrogateescape")
    if b"\0" in script:
        raise ValueError("a shell script cannot hold a NUL byte")
    step = b"(" + _STOP + b"eval " + _quoted(script) + b")"
    if not command.stdin:
        return step + b" </dev/null\n"
    # A reader that stops early breaks the pipe: where SIGPIPE is ignored, printf would report that on stderr.
    if _PLAIN.fullmatch(command.stdin):
        return b"printf %s " + _quoted(command.stdin) + b" 2>/dev/null | " + step + b"\n"
    encoded = base64.b64encode(command.stdin)
    return b"printf %s " + encoded + b" 2>/dev/null | base64 -d 2>/dev/null | " + step + b"\n"


def _quoted(word: bytes) -> bytes:
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


class BrokenAnswer(ProbeFailed):
    """What arrived is not an answer of this protocol, or is too long. The session cannot be used any more."""


class Marker(NamedTuple):
    """A marker line: its key (`BATCH.INDEX`, `BATCH.end`, or GREETING of bootstrap.py) and the rest of the line."""

    key: str
    rest: str


@dataclass
class Splitter:
    """Splits one stream into markers and the bytes between them, in time linear in the stream's length.

    `feed` calls `on_bytes` with bytes as they arrive, and `on_marker` at each marker. Bytes that may be the beginning
    of a nonce are held back until the next piece arrives. Raises BrokenAnswer for a marker line without an end.
    """

    nonce: bytes
    on_bytes: Callable[[bytes], None]
    on_marker: Callable[[Marker], None]
    _held: bytes = b""
    _in_marker: bool = False

    def feed(self, piece: bytes) -> None:
        """Process the next piece of the stream."""
        data = self._held + piece
        self._held = b""
        start = 0
        while True:
            if self._in_marker:
                newline = data.find(b"\n", start, start + _MARKER_LIMIT)
                if newline < 0 and len(data) - start >= _MARKER_LIMIT:
                    raise BrokenAnswer(f"the host sent a marker of more than {_MARKER_LIMIT} bytes")
                if newline < 0:
                    self._held = data[start:]
                    return
                key, _, rest = data[start:newline].decode("utf-8", "replace").strip().partition(" ")
                self._in_marker = False
                start = newline + 1
                self.on_marker(Marker(key, rest))
                continue
            found = data.find(self.nonce, start)
            if found < 0:
                break
            if found > start:
                self.on_bytes(data[start:found])
            start = found + len(self.nonce)
            self._in_marker = True
        end = self._end_of_output(data, start)
        if end > start:
            self.on_bytes(data[start:end])
        self._held = data[end:]

    def _end_of_output(self, data: bytes, start: int) -> int:
        """The index from which the end of `data` equals a beginning of the nonce; its length when there is none."""
        for size in range(min(len(self.nonce) - 1, len(data) - start), 0, -1):
            if data.endswith(self.nonce[:size]):
                return len(data) - size
        return len(data)


class _Output:
    """What a command has printed on one stream so far; with `kept`, only that many last bytes."""

    def __init__(self, kept: int | None) -> None:
        self._kept = kept
        self._bytes = bytearray()  # one object, however small the pieces are

    def add(self, piece: bytes) -> None:
        """Add a piece."""
        self._bytes += piece
        if self._kept is not None and len(self._bytes) > 2 * self._kept:  # not at each piece: that would be slow
            del self._bytes[: -self._kept]

    def get(self) -> bytes:
        """All that is kept."""
        return bytes(self._bytes[-self._kept :] if self._kept is not None else self._bytes)

    def take(self) -> bytes:
        """All that is kept; the next command begins."""
        taken = self.get()
        self._bytes = bytearray()
        return taken


class Answers:
    """The results of one batch as they arrive: add output and markers of both streams until `done`.

    `stream` is 0 for stdout and 1 for stderr. `end_code` is the exit code of the shell that ran the batch.
    `streamed`: the output is passed on as it arrives, and results contain only its end (STREAMED_KEPT).
    """

    def __init__(self, batch: int, count: int, *, streamed: bool = False) -> None:
        self.results: list[Result] = []
        self.end_code: int | None = None
        self._batch = batch
        self._count = count
        self._streamed = streamed
        self._size = 0
        kept = STREAMED_KEPT if streamed else None
        self._outputs = (_Output(kept), _Output(kept))
        self._finished: tuple[list[tuple[bytes, int]], list[tuple[bytes, int]]] = ([], [])
        self._ended: set[int] = set()

    def add_output(self, stream: int, piece: bytes) -> None:
        """Add output of the running command. Raises BrokenAnswer when the batch has printed too much."""
        self._size += len(piece)
        if self._size > OUTPUT_LIMIT and not self._streamed:
            raise BrokenAnswer(f"the host sent more than {OUTPUT_LIMIT >> 20} MiB")
        self._outputs[stream].add(piece)

    def add_marker(self, stream: int, marker: Marker) -> None:
        """Record that a command of this batch, or the batch, has ended on this stream. Ignore other batches.

        Raises BrokenAnswer for a marker that no shell prints at this point.
        """
        batch, _, index = marker.key.partition(".")
        if batch != str(self._batch):
            return
        finished = self._finished[stream]
        expected = index == END or (index == str(len(finished)) and len(finished) < self._count)
        if not expected or stream in self._ended or not _CODE.fullmatch(marker.rest):
            raise BrokenAnswer(f"the host sent an unexpected marker: {f'{marker.key} {marker.rest}'[:80]!r}")
        if index == END:
            self._ended.add(stream)
            self.end_code = int(marker.rest)
            return
        finished.append((self._outputs[stream].take(), int(marker.rest)))
        while len(self.results) < min(len(self._finished[0]), len(self._finished[1])):
            (stdout, code), (stderr, _) = (side[len(self.results)] for side in self._finished)
            self.results.append(Result(stdout, stderr, code))

    @property
    def done(self) -> bool:
        """Whether the end of the batch has arrived on both streams."""
        return len(self._ended) == 2

    @property
    def partial(self) -> Result:
        """The output so far of the command that did not end."""
        return Result(self._outputs[0].get(), self._outputs[1].get(), self.end_code or 0)


def describe(command: Command, limit: int = 80) -> str:
    """A command's first line, for messages. It holds no secret, since those travel on standard input."""
    lines = [line.strip() for line in command.script.splitlines() if line.strip()]
    first = lines[0] if lines else "an empty script"
    return shlex.quote(first) if len(first) <= limit and len(lines) == 1 else f"{first[:limit]}…"
