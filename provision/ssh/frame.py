"""The protocol of the root shell: batches of commands in, framed results out. Pure functions and values.

In, on the shell's standard input:

    BATCH DEADLINE LENGTH\\n     then LENGTH bytes of script, which end in `#NONCE`

The shell reads the whole script before it starts anything: when the connection breaks in the middle, no part of
the script runs. Then it pipes the script into `timeout -k 30 DEADLINE /bin/sh`: a constant argv, and a
process group of its own that ends with the deadline.

Out, on standard output and on standard error, after the bytes of each command:

    NONCE BATCH.INDEX CODE\\n    and at the end of the batch    NONCE BATCH.end CODE\\n

A batch has one part or several. A single part has questions, or one command that changes something. Several parts have
one changing command each, in order; the last part may have questions. The script runs each of several parts in a `timeout`
and a shell of its own, as if the part had been sent alone, and ends after the first part that fails. It also ends between
two parts if the controller has sent an empty line on standard input, or if the input has ended: so after Ctrl-C, kill -9
or a broken connection, the running command ends and no other starts. A reader process waits for that line, which costs one
process for each batch.

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
STREAMED_KEPT = 1 << 20  # bytes that a result keeps of each output that is passed on as it arrives
STOP_REQUEST = b"\n"  # makes a batch of several parts end after the running command
KILL_AFTER = 30  # seconds between TERM and KILL at a deadline: a rollback may wait for Docker
_GATHER_ABOVE = 4  # commands in a part; for fewer commands the two gathering processes cost more than they save
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
# SIGTERM reaches all shells of a step. A shell runs its trap after the command that it waits for. So the main shell waits
# for the step, and the step waits for a subshell that rolls back. A shell that ignores TERM is killed with the group.
_STOP = b"trap 'exit 143' TERM\n"
_GATHER = b"exec 3>&1 4>&2; trap : TERM\n{ trap : TERM; {\n" + _STOP
_GATHERED = b"} 2>&1 1>&5 5>&- 3>&- 4>&- | " + _DD + b" >&4 3>&- 4>&- 5>&-; } 5>&1 | " + _DD + b" >&3 3>&- 4>&-\n"


# The stop request is one byte. The reader reads it, or the loop of the bootstrap script, which skips an empty line. The
# batch waits until the reader has ended: a killed process might still read the first byte of the next batch.
# $$ is the shell of the batch. It runs the trap after the command that it waits for.
_READER = b"""trap provision_stop=1 USR1
{ read -r provision_line; kill -USR1 $$; } <&8 >/dev/null 2>&1 &
provision_reader=$!
trap '[ "$provision_stop" ] || { kill "$provision_reader"; wait "$provision_reader"; } 2>/dev/null' EXIT
exec 8<&-
"""
_UNLESS_STOPPED = b"""provision_code=$?
[ "$provision_code" = 0 ] && [ -z "$provision_stop" ] || exit "$provision_code"
"""


class Part(NamedTuple):
    """Commands that run in order regardless of their exit codes, within `deadline` seconds together."""

    commands: Sequence[Command]
    deadline: float

    @property
    def gathers(self) -> bool:
        """Whether the outputs arrive in blocks when all commands have ended, instead of at once.

        If a command starts a background process that keeps its output open, the whole part then waits for this process.
        """
        return len(self.commands) > _GATHER_ABOVE


def encode(batch: int, parts: Sequence[Part], nonce: str) -> bytes:
    """The bytes that make the shell run the parts in order, until the last command of a part fails.

    Raises ValueError for a NUL in a script.
    """
    if len(parts) == 1:
        body, deadline = b"exec 8<&-\n" + _body(batch, 0, parts[0], nonce), parts[0].deadline
    else:
        body, deadline, index = _STOP + _READER, 0.0, 0
        for part in parts:
            limit = f"timeout -k {KILL_AFTER} {max(part.deadline, 0.001):.3f} /bin/sh\n".encode()
            inner = _body(batch, index, part, nonce) + b"exit $provision_code\n"
            body += b"printf %s " + _quoted(inner) + b" 2>/dev/null | " + limit + _UNLESS_STOPPED
            deadline += part.deadline + 2 * KILL_AFTER
            index += len(part.commands)
    script = body + f"#{nonce}".encode()
    return f"{batch} {max(deadline, 0.001):.3f} {len(script)}\n".encode() + script


def _body(batch: int, first: int, part: Part, nonce: str) -> bytes:
    marker = f'm(){{ provision_code=$2; echo "{nonce} {batch}.$1 $2"; echo "{nonce} {batch}.$1 $2" >&2; }}\n'.encode()
    steps = [
        text for index, command in enumerate(part.commands, first) for text in (_step(command), b"m %d $?\n" % index)
    ]
    return b"".join([marker, *([_GATHER, *steps, _GATHERED] if part.gathers else [_STOP, *steps])])


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


class Answers:
    """The results of one batch as they arrive: add output and markers of both streams until `done`.

    `stream` is 0 for stdout and 1 for stderr. `end_code` is the exit code of the shell that ran the batch.
    `streamed` is the number of commands, from the first one on, whose output is passed on as it arrives. Their results
    contain only the last STREAMED_KEPT bytes of each output.
    """

    def __init__(self, batch: int, count: int, *, streamed: int = 0) -> None:
        self.results: list[Result] = []
        self.end_code: int | None = None
        self._batch = batch
        self._count = count
        self._streamed = streamed
        self._size = 0
        self._finished: tuple[list[tuple[bytes, int]], list[tuple[bytes, int]]] = ([], [])
        self._outputs = [self._output(0), self._output(1)]
        self._ended: set[int] = set()

    def running(self, stream: int) -> int:
        """The index of the command whose output arrives now on this stream."""
        return len(self._finished[stream])

    def _output(self, stream: int) -> _Output:
        return _Output(STREAMED_KEPT if self.running(stream) < self._streamed else None)

    def add_output(self, stream: int, piece: bytes) -> None:
        """Add output of the running command. Raises BrokenAnswer when the batch has printed too much."""
        if self.running(stream) >= self._streamed:
            self._size += len(piece)
        if self._size > OUTPUT_LIMIT:
            raise BrokenAnswer(f"the host sent more than {OUTPUT_LIMIT >> 20} MiB")
        self._outputs[stream].add(piece)

    def add_marker(self, stream: int, marker: Marker) -> list[Result]:
        """Record that a command of this batch, or the batch, has ended on this stream. Ignore other batches.

        Returns the results that are complete now. Raises BrokenAnswer for a marker that no shell prints at this point.
        """
        batch, _, index = marker.key.partition(".")
        if batch != str(self._batch):
            return []
        finished = self._finished[stream]
        expected = index == END or (index == str(len(finished)) and len(finished) < self._count)
        if not expected or stream in self._ended or not _CODE.fullmatch(marker.rest):
            raise BrokenAnswer(f"the host sent an unexpected marker: {f'{marker.key} {marker.rest}'[:80]!r}")
        if index == END:
            self._ended.add(stream)
            self.end_code = int(marker.rest)
            return []
        finished.append((self._outputs[stream].get(), int(marker.rest)))
        self._outputs[stream] = self._output(stream)
        before = len(self.results)
        for (stdout, code), (stderr, _) in list(zip(*self._finished, strict=False))[before:]:
            self.results.append(Result(stdout, stderr, code))
        return self.results[before:]

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
