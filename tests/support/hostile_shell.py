"""What a login shell of a hostile host may answer: sshd runs this file as its ForceCommand, with one argument.

It knows the protocol of `provision.ssh.frame` (a host's root can read the nonce), and breaks one of its promises.
"""

from __future__ import annotations

import gzip
import os
import re
import sys
import zlib
from typing import NoReturn

MODES = {
    "flood": "prints zeros without end, on both outputs, instead of a result",
    "flood-lines": "prints lines without end",
    "flood-prompt": "asks for a password without end",
    "flood-greeting": "prints lines without end before the root shell starts",
    "stall": "sends half a marker, then nothing",
    "stall-greeting": "sends half a greeting, then nothing",
    "marker-without-end": "sends the nonce, then letters without end",
    "markers": "sends markers without end",
    "marker-of-words": "sends a marker whose exit code is a word",
    "zeros": "answers well, and for gitlab.rb with 2 GiB of zeros in gzip",
    "half-gzip": "answers well, and for gitlab.rb with the first bytes of a gzip file",
    "garbage": "answers every question with random bytes",
}


def main(mode: str) -> None:
    """Greets like the bootstrap script, then answers batches in the given way."""
    if mode == "flood-prompt":
        write_forever(2, b"[sudo] password: " * 1000)
    nonce = read_nonce()
    os.write(1, b"provision-ready 0\n")
    if mode == "flood-greeting":
        write_forever(1, b"Welcome to this host!\n" * 1000)
    if mode == "stall-greeting":
        os.write(1, nonce[:20])
        stay_silent()
    os.write(1, nonce + b" greeting 0 none\n")
    os.write(2, nonce + b" greeting\n")
    while (head := sys.stdin.buffer.readline()).strip():
        batch, _, size = head.split()
        script = sys.stdin.buffer.read(int(size))
        answer(mode, nonce, batch, script)


def read_nonce() -> bytes:
    """The nonce of the line that the client sends first."""
    while True:
        words = sys.stdin.buffer.readline().split()
        if not words:
            sys.exit(76)
        if words[0] == b"provision-nonce":
            return words[1]


def answer(mode: str, nonce: bytes, batch: bytes, script: bytes) -> None:
    """Answers one batch."""
    marker = nonce + b" " + batch
    if mode == "flood":
        if os.fork():
            write_forever(1, bytes(65536))
        write_forever(2, bytes(65536))
    if mode == "flood-lines":
        write_forever(1, b"a line of output\n" * 4000)
    if mode == "stall":
        os.write(1, marker + b".0")
        stay_silent()
    if mode == "marker-without-end":
        os.write(1, nonce)
        write_forever(1, b"x" * 65536)
    if mode == "markers":
        write_forever(1, (marker + b".0 0\n") * 1000)
    if mode == "marker-of-words":
        both(marker + b".0 zero\n")
        stay_silent()
    steps = re.split(rb"\nm \d+ \$\?\n", script)[:-1]
    for index, step in enumerate(steps):
        sys.stdout.buffer.write(output(mode, step))
        sys.stdout.buffer.flush()
        both(marker + b".%d 0\n" % index)
    both(marker + b".end 0\n")


def output(mode: str, step: bytes) -> bytes:
    """What a command prints: by default nothing."""
    if mode == "garbage":
        return os.urandom(3000)
    if b"gzip -1c" in step and mode == "zeros":
        return zeros_in_gzip(2 << 30)
    if b"gzip -1c" in step and mode == "half-gzip":
        return gzip.compress(os.urandom(1000))[:500]
    return b""


def zeros_in_gzip(size: int) -> bytes:
    """This number of zeros in gzip: a thousandth of that. The checksum at the end is not that of the zeros."""
    block = 64 << 20
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = squeeze.compress(bytes(block)) + squeeze.flush(zlib.Z_FULL_FLUSH)  # a block that can be repeated
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + packed * (size // block) + b"\x03\0" + bytes(8)


def both(text: bytes) -> None:
    """Writes to both outputs."""
    os.write(1, text)
    os.write(2, text)


def stay_silent() -> NoReturn:
    """Sends nothing until the client is gone: then the input ends."""
    while os.read(0, 65536):
        pass
    sys.exit(1)


def write_forever(descriptor: int, block: bytes) -> NoReturn:
    """Writes until the client is gone."""
    while True:
        try:
            os.write(descriptor, block)
        except OSError:
            sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
