"""The TCP connection to a host. Nothing here needs paramiko, whose import takes 0.1 s: the host is dialled before it.

`dial` waits for one host. `Dialler` dials many hosts in one thread: a host that does not answer keeps no thread from
the others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from queue import SimpleQueue
from typing import Any, NamedTuple

from provision.errors import Unreachable
from provision.ssh.session import Target
from provision.ssh.ssh_config import HostOptions, host_options

SILENCE_LIMIT = 30.0  # seconds without a received byte, after a request for one, until a host counts as lost
_NEXT_ADDRESS = 0.25  # seconds without an answer until the next address is tried too (RFC 8305, section 5)
_LATE = 1.0  # seconds after which a host that is dialled is not expected to answer soon
_BANNER_PATIENCE = 3  # times connect_timeout: a busy sshd is not dialled three times, but waited for as long
_DIALLED = 512  # hosts that are dialled at once, most of which do not answer
_RESOLVERS = 8  # threads that ask for addresses and run `ssh -G`
_STALE = 60.0  # seconds; sshd's LoginGraceTime is 120: a connection that is not used until then is not used any more
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


def dial_directly(target: Target) -> socket.socket | None:
    """The TCP connection to a host; None for a host behind a gateway.

    Raises Unreachable, and UsageError for ssh_config files that cannot be used.
    """
    options = host_options(target.address, user=target.user, port=target.port)
    if any(gateways_to(target, options)):
        return None
    return dial(
        options.hostname,
        options.port,
        timeout=target.connect_timeout,
        label=f"{target.name} ({options.place})",
        family=options.address_family,
    )


def gateways_to(target: Target, options: HostOptions) -> tuple[str, str]:
    """The ProxyJump and the ProxyCommand that lead to a host; "" for none. The inventory overrides ~/.ssh/config."""
    jump = target.proxy_jump or options.proxy_jump or ""
    if not jump:
        return "", options.proxy_command or ""
    return "" if jump.lower() == "none" else jump, ""


def dial(host: str, port: int, *, timeout: float, label: str, family: str = "any") -> socket.socket:
    """Open a TCP connection to one of the name's addresses within `timeout` seconds.

    label    names the host in messages ("runner-1 (203.0.113.7)")
    family   "inet", "inet6" or "any", as AddressFamily in ssh_config(5)

    The addresses are tried at the same time, each one _NEXT_ADDRESS after the one before it. Raises Unreachable.
    """
    race = _Race(_addresses(host, port, label, family), timeout)
    with selectors.DefaultSelector() as selector:
        try:
            while not race.is_lost(now := time.monotonic()):
                if (begun := race.begin(now)) is not None:
                    selector.register(begun, selectors.EVENT_WRITE)
                for ready, _ in selector.select(max(0.0, race.wakes - now)):
                    assert isinstance(ready.fileobj, socket.socket)
                    selector.unregister(ready.fileobj)
                    if race.finish(ready.fileobj):
                        return ready.fileobj
        finally:
            race.close()
    raise _unreachable(label, host, port, timeout, race.failures) from (race.failures[-1] if race.failures else None)


def _addresses(host: str, port: int, label: str, family: str) -> list[tuple[Any, ...]]:
    wanted = _FAMILIES.get(family, socket.AF_UNSPEC)
    try:
        return _interleaved(socket.getaddrinfo(host, port, family=wanted, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:  # UnicodeError: an empty label, or one of more than 63 characters
        reason = error.strerror or str(error) if isinstance(error, OSError) else "it is not a host name"
        raise Unreachable(
            f"{label}: the name {host} does not resolve ({reason})",
            hint=f"check `address` in the inventory or HostName in ~/.ssh/config; `getent hosts {host}` must answer",
        ) from error


def _interleaved(addresses: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Each address once, the families in turn, beginning with the preferred one (RFC 8305, section 4)."""
    unique = list(dict.fromkeys(addresses))
    first = [one for one in unique if one[0] == unique[0][0]]
    others = [one for one in unique if one[0] != unique[0][0]]
    return [one for one in chain.from_iterable(zip_longest(first, others)) if one is not None]


class _Race:
    """The addresses of one name, tried side by side; the first connection that is accepted wins.

    The others are closed while they wait for an answer. Their hosts then see no connection at all: sshd would count one
    that ends without a login against this machine (PerSourcePenalties).

    wakes      when to call `begin` again, in monotonic seconds
    failures   the errors of the addresses that were refused
    """

    def __init__(self, addresses: Sequence[tuple[Any, ...]], timeout: float) -> None:
        self.failures: list[OSError] = []
        self._waiting = deque(addresses)
        self._next_start = time.monotonic()
        self._deadline = self._next_start + timeout
        self._begun: set[socket.socket] = set()

    @property
    def wakes(self) -> float:
        return min(self._deadline, self._next_start) if self._waiting else self._deadline

    def is_lost(self, now: float) -> bool:
        """Whether no address has answered in time, or all have refused."""
        return now >= self._deadline or not (self._waiting or self._begun)

    def begin(self, now: float) -> socket.socket | None:
        """A socket that is being connected to the next address, if that one is due."""
        while self._waiting and (now >= self._next_start or not self._begun):
            self._next_start = now + _NEXT_ADDRESS
            try:
                begun = _begin(self._waiting.popleft())
            except OSError as error:
                self.failures.append(error)
                continue
            self._begun.add(begun)
            return begun
        return None

    def finish(self, attempt: socket.socket) -> bool:
        """Whether a socket that is ready is connected. Otherwise it is closed, and the next address is due."""
        self._begun.discard(attempt)
        code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            _set_options(attempt)
            return True
        attempt.close()
        self.failures.append(OSError(code, os.strerror(code)))
        self._next_start = time.monotonic()
        return False

    def close(self) -> list[socket.socket]:
        """Give up the addresses that have not answered. Returns their sockets."""
        left = list(self._begun)
        for one in left:
            one.close()
        self._begun.clear()
        self._waiting.clear()
        return left


def _begin(address: tuple[Any, ...]) -> socket.socket:
    """A socket that is being connected. Raises OSError."""
    family, kind, protocol, _, where = address
    attempt = socket.socket(family, kind, protocol)
    attempt.setblocking(False)
    code = attempt.connect_ex(where)
    if code not in (0, errno.EINPROGRESS):
        attempt.close()
        raise OSError(code, os.strerror(code))
    return attempt


def _set_options(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    limits = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": int(SILENCE_LIMIT * 1000)}
    for name, value in limits.items():
        if option := getattr(socket, name, None):  # not every system has them all
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _unreachable(label: str, host: str, port: int, timeout: float, failures: list[OSError]) -> Unreachable:
    if any(isinstance(error, ConnectionRefusedError) for error in failures):
        return Unreachable(
            f"{label}: port {port} of {host} refused the connection",
            hint=f"check that sshd runs there and listens on port {port}"
            " (`port` in the inventory, Port in ~/.ssh/config)",
        )
    if not failures or all(isinstance(error, TimeoutError) for error in failures):
        return Unreachable(
            f"{label}: no answer from {host} port {port} within {timeout:g} s",
            hint="check that the host is up and that no firewall drops the packets;"
            " connect_timeout in [ssh] sets the time limit",
        )
    return Unreachable(
        f"{label}: cannot connect to {host} port {port}: {failures[-1].strerror or failures[-1]}",
        hint="check the address and the route from this machine",
    )


def no_banner(label: str, host: str, port: int, detail: str) -> Unreachable:
    """The error for a server that accepts TCP connections and is no SSH server, or a busy one."""
    return Unreachable(
        f"{label}: {host} port {port} accepts TCP connections but sends no SSH banner ({detail})",
        hint="check that sshd listens on this port; a busy sshd drops connections too:"
        " raise MaxStartups in its sshd_config, or use fewer --forks. OpenSSH 9.8 and newer refuse a machine for a"
        " while after connections that ended without a login (PerSourcePenalties)",
    )


class _Place(NamedTuple):
    """Where a host is dialled: `label` names it in messages."""

    label: str
    host: str
    port: int
    timeout: float
    addresses: list[tuple[Any, ...]]


class _Call:
    """A host that is being dialled.

    place       None until its name is resolved
    connection  is there when an address has accepted; then the banner is awaited until `deadline`
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.late_at = time.monotonic() + _LATE
        self.deadline = float("inf")
        self.place: _Place | None = None
        self.race: _Race | None = None
        self.connection: socket.socket | None = None

    @property
    def wakes(self) -> float:
        """When to look at it again, in monotonic seconds, if nothing happens before."""
        return min(self.late_at, self.race.wakes if self.race is not None else self.deadline)

    def error(self, now: float) -> Unreachable | None:
        """Why the host is given up, if it is."""
        assert self.place is not None
        label, host, port, timeout, _ = self.place
        if self.race is not None:
            return _unreachable(label, host, port, timeout, self.race.failures) if self.race.is_lost(now) else None
        seconds = _BANNER_PATIENCE * timeout
        return no_banner(label, host, port, f"nothing within {seconds:g} s") if now >= self.deadline else None


class Dialler:
    """Dials hosts in one thread, and reports each when an SSH server has answered, or when it is given up.

    A host that does not answer takes none of the threads that work on hosts. sshd accepts a connection without a login
    for two minutes only, and remembers those that end without one: a host is dialled when a thread can be expected to be
    free for it. At most `workers` hosts are being dialled or worked on at once, without those that are late.

    targets   the hosts by their names
    sockets   how many may be open for dialling; hosts that do not answer use most of them
    """

    def __init__(self, targets: Mapping[str, Target], workers: int, sockets: int = _DIALLED) -> None:
        self._targets = targets
        self._workers = workers
        self._limit = max(1, min(sockets, _DIALLED))
        self._lock = threading.Lock()
        self._left: deque[str] = deque()
        self._counted: set[str] = set()  # hosts that have a thread, or will soon have one
        self._results: dict[str, tuple[socket.socket | Exception | None, float]] = {}
        self._resolved: SimpleQueue[tuple[str, _Place | Exception | None]] = SimpleQueue()
        self._calls: dict[str, _Call] = {}  # used by the thread only
        self._cancelled = False
        self._bell, self._listener = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="dialler", daemon=True)
        for one in (self._bell, self._listener):
            one.setblocking(False)

    def start(self, names: Sequence[str], ready: Callable[[str], None], late: Callable[[str], None]) -> None:
        """Dial these hosts, in their order. The two functions are called in the dialler's thread.

        ready   is called once for each host: `take` has the result
        late    is called for a host that has not answered after _LATE seconds
        """
        self._left.extend(names)
        self._ready, self._late = ready, late
        self._thread.start()

    def take(self, name: str) -> socket.socket | None:
        """The TCP connection to a host that is ready; None if there is none: behind a gateway, or it became too old.

        Raises why the host was given up: Unreachable, UsageError.
        """
        with self._lock:
            result, since = self._results.pop(name, (None, 0.0))
        if isinstance(result, Exception):
            raise result
        if result is not None and time.monotonic() - since > _STALE:
            result.close()
            return None
        return result

    def release(self, name: str) -> None:
        """The thread that worked on the host is free for another one."""
        with self._lock:
            self._counted.discard(name)
        self._wake()

    def cancel(self) -> None:
        """Report all hosts that are left as ready, without a connection."""
        self._cancelled = True
        self._wake()

    def close(self) -> None:
        """End the thread, and close the connections that nobody has taken."""
        self._ready = self._late = lambda _: None
        self.cancel()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            for result, _ in self._results.values():
                if isinstance(result, socket.socket):
                    result.close()
            self._results.clear()
        self._bell.close()
        self._listener.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: there is nothing to wake
            self._bell.send(b"!")

    def _run(self) -> None:
        resolvers = ThreadPoolExecutor(_RESOLVERS, "resolver")
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            try:
                while not self._cancelled and (self._left or self._calls):
                    self._begin_more(resolvers)
                    now = time.monotonic()
                    wakes = min((now + _STALE, *(one.wakes for one in self._calls.values())))
                    for key, _ in selector.select(max(0.0, wakes - now)):
                        if key.data is not None:
                            self._progress(key.data, key.fileobj, selector)
                        else:
                            with contextlib.suppress(BlockingIOError):
                                self._listener.recv(4096)
                    while not self._resolved.empty():
                        self._has_place(*self._resolved.get())
                    self._look_at_clocks(selector)
            finally:
                resolvers.shutdown(wait=False, cancel_futures=True)
                for call in list(self._calls.values()):
                    self._finish(call, None, selector)
        while self._left:
            self._ready(self._left.popleft())

    def _begin_more(self, resolvers: ThreadPoolExecutor) -> None:
        while self._left and len(self._calls) < self._limit:
            with self._lock:
                if len(self._counted) >= self._workers:
                    return
                name = self._left.popleft()
                self._counted.add(name)
            self._calls[name] = _Call(name)
            resolvers.submit(self._resolve, name)

    def _resolve(self, name: str) -> None:
        """In a thread of its own: DNS, and the commands of `Match exec` in ~/.ssh/config, take their time."""
        result: _Place | Exception | None
        try:
            result = self._place(self._targets[name])
        except Exception as error:
            result = error
        self._resolved.put((name, result))
        self._wake()

    def _place(self, target: Target) -> _Place | None:
        options = host_options(target.address, user=target.user, port=target.port)
        if any(gateways_to(target, options)):
            return None
        label = f"{target.name} ({options.place})"
        addresses = _addresses(options.hostname, options.port, label, options.address_family)
        return _Place(label, options.hostname, options.port, target.connect_timeout, addresses)

    def _has_place(self, name: str, place: _Place | Exception | None) -> None:
        call = self._calls[name]
        if isinstance(place, _Place):
            call.place, call.race = place, _Race(place.addresses, place.timeout)
        else:
            self._finish(call, place, None)

    def _progress(self, call: _Call, ready: Any, selector: selectors.BaseSelector) -> None:
        """A socket of this host is ready."""
        selector.unregister(ready)
        if call.race is None:  # data, or the end of the connection, which the login reports
            call.connection = None
            self._finish(call, ready, selector)
        elif call.race.finish(ready):
            assert call.place is not None
            for loser in call.race.close():
                selector.unregister(loser)
            call.race, call.connection = None, ready
            call.deadline = time.monotonic() + _BANNER_PATIENCE * call.place.timeout
            selector.register(ready, selectors.EVENT_READ, call)

    def _look_at_clocks(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for call in list(self._calls.values()):
            if call.race is not None and (begun := call.race.begin(now)) is not None:
                selector.register(begun, selectors.EVENT_WRITE, call)
            if now >= call.late_at:
                call.late_at = float("inf")
                with self._lock:
                    self._counted.discard(call.name)
                self._late(call.name)
            if call.place is not None and (error := call.error(now)) is not None:
                self._finish(call, error, selector)

    def _finish(
        self, call: _Call, result: socket.socket | Exception | None, selector: selectors.BaseSelector | None
    ) -> None:
        """The host is ready: connected, given up, or to be connected by the thread that works on it."""
        del self._calls[call.name]
        unused = call.race.close() if call.race is not None else []
        if call.connection is not None:
            call.connection.close()
            unused.append(call.connection)
        for one in unused:
            if selector is not None:
                selector.unregister(one)
        with self._lock:
            self._counted.add(call.name)
            self._results[call.name] = result, time.monotonic()
        self._ready(call.name)
