"""Searches argv and environment of every process until its standard input ends, but those of other labs' hosts.

Its argument is the cgroup of this lab's hosts. It reads from standard input what to find:

    {"name": ["a form of the text", …], …}      one line of JSON, latin-1 for bytes

and prints {"samples": rounds, "seen": [[name, pid, "argv" or "environment", its PID namespace], …]} at the end.
"""

import json
import os
import select
import sys

_PLACES = {"cmdline": "argv", "environ": "environment"}
_PAUSE = 0.02  # seconds between two rounds


def read(pid: str, place: str) -> bytes:
    """A file of a process; empty when the process has ended."""
    try:
        descriptor = os.open(f"/proc/{pid}/{place}", os.O_RDONLY)
    except OSError:
        return b""
    try:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))
    except OSError:  # it ended meanwhile, or has none
        return b""
    finally:
        os.close(descriptor)


def is_elsewhere(pid: str, lab: bytes) -> bool:
    """Whether the process runs on a host of another lab. Tests of others make most of a busy machine's processes."""
    groups = read(pid, "cgroup")
    return b":/provision-" in groups and b":/%s/" % lab not in groups


def parent_of(pid: str) -> str:
    """The parent of a process; the process itself when it has ended."""
    status = read(pid, "stat").rpartition(b")")[2].split()
    return status[1].decode() if len(status) > 1 else pid


def owner(pid: str, parent: str, place: str, text: bytes) -> int:
    """The process that the text is from: its parent if that one has the same.

    A process that was just forked is a copy of its parent; the command of a secret inherits the user's environment.
    """
    return int(parent if read(parent, place) == text else pid)


def space(pid: str) -> str:
    """The process's PID namespace. Each host has its own."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115
    except OSError:
        return ""


def main() -> None:
    """Searches until standard input ends."""
    wanted = {
        form.encode("latin-1"): name for name, forms in json.loads(sys.stdin.readline()).items() for form in forms
    }
    seen: set[tuple[str, int, str, str]] = set()
    lab = sys.argv[1].encode()
    known: dict[
        str, tuple[str, dict[str, bytes]]
    ] = {}  # by process: its parent, and what was searched in the round before
    elsewhere: dict[str, bool] = {}  # of the processes that there were in the round before
    print("watching", flush=True)
    samples = 0
    while not select.select([sys.stdin], [], [], _PAUSE)[0]:
        before, known = known, {}
        there = elsewhere
        elsewhere = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208  no object for each of thousands of looks
            skipped = elsewhere[pid] = there[pid] if pid in there else is_elsewhere(pid, lab)
            if skipped:
                continue
            # The parent is read first: a process that was just forked may have ended when something is found.
            parent, last = before.get(pid) or (parent_of(pid), {})
            data = {place: read(pid, place) for place in _PLACES}
            known[pid] = parent, data
            for place, what in _PLACES.items():
                if data[place] == last.get(place):
                    continue
                seen |= {
                    (name, owner(pid, parent, place, data[place]), what, space(pid))
                    for form, name in wanted.items()
                    if form in data[place]
                }
        samples += 1
    print(json.dumps({"samples": samples, "seen": sorted(seen)}))


main()
