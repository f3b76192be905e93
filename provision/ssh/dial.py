"""The TCP connection to a host. It is opened before paramiko is imported, which takes 0.1 s.

`dial` opens a connection to one host, and waits for it. `Dialler` opens connections to many hosts in one thread, so that
hosts that do not answer do not occupy the threads that work on hosts.
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
_BANNER_FACTOR = 3  # times connect_timeout, for a busy sshd: one long wait instead of three attempts
_DIALLED = 512  # hosts that are dialled at once; only hosts that do not answer can become so many
_RESOLVERS = 8  # threads that ask for addresses and run `ssh -G`
_STALE = 60.0  # seconds after which an unused connection is closed; sshd's LoginGraceTime is 120
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
    attempts = _Attempts(_addresses(host, port, label, family), timeout)
    with selectors.DefaultSelector() as selector:
        try:
            while not attempts.have_failed(now := time.monotonic()):
                if (begun := attempts.begin_next(now)) is not None:
                    selector.register(begun, selectors.EVENT_WRITE)
                for ready, _ in selector.select(max(0.0, attempts.wake_at - now)):
                    assert isinstance(ready.fileobj, socket.socket)
                    selector.unregister(ready.fileobj)
                    if attempts.is_connected(ready.fileobj):
                        return ready.fileobj
        finally:
            attempts.close()
    failures = attempts.failures
    raise _unreachable(label, host, port, timeout, failures) from (failures[-1] if failures else None)


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


class _Attempts:
    """The attempts to connect to the addresses of one name, at the same time. The first accepted connection is used.

    The other attempts are closed before they are accepted. sshd would count an accepted connection that ends without a
    login against this machine (PerSourcePenalties).

    wake_at    when to call `begin_next` again, in monotonic seconds
    failures   the errors of the addresses that refused
    """

    def __init__(self, addresses: Sequence[tuple[Any, ...]], timeout: float) -> None:
        self.failures: list[OSError] = []
        self._waiting = deque(addresses)
        self._next_start = time.monotonic()
        self._deadline = self._next_start + timeout
        self._begun: set[socket.socket] = set()

    @property
    def wake_at(self) -> float:
        return min(self._deadline, self._next_start) if self._waiting else self._deadline

    def have_failed(self, now: float) -> bool:
        """Whether no address has answered in time, or all have refused."""
        return now >= self._deadline or not (self._waiting or self._begun)

    def begin_next(self, now: float) -> socket.socket | None:
        """Begin the next attempt if it is time for it. Returns its socket, which is being connected."""
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

    def is_connected(self, attempt: socket.socket) -> bool:
        """Whether this socket, which is ready, is connected. Otherwise close it; the next attempt can begin at once."""
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
        """Close the attempts that have not ended. Returns their sockets."""
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
    """The error for a server that accepts TCP connections but sends no banner: no SSH server, or a busy one."""
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


class _DialledHost:
    """A host that is being dialled: its name is resolved, then its addresses are tried, then its banner is awaited.

    place       None until the name is resolved
    attempts    while the addresses are tried
    connection  while the banner is awaited, at most until `deadline`
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.late_at = time.monotonic() + _LATE
        self.deadline = float("inf")
        self.place: _Place | None = None
        self.attempts: _Attempts | None = None
        self.connection: socket.socket | None = None

    @property
    def wake_at(self) -> float:
        """When to check its times again, in monotonic seconds, if nothing happens before."""
        return min(self.late_at, self.attempts.wake_at if self.attempts is not None else self.deadline)

    def error(self, now: float) -> Unreachable | None:
        """Why no more is tried; None while there is still something to try."""
        assert self.place is not None
        label, host, port, timeout, _ = self.place
        if (attempts := self.attempts) is not None:
            return _unreachable(label, host, port, timeout, attempts.failures) if attempts.have_failed(now) else None
        seconds = _BANNER_FACTOR * timeout
        return no_banner(label, host, port, f"nothing within {seconds:g} s") if now >= self.deadline else None


class Dialler:
    """Dials hosts in one thread. Each host is reported when its SSH server has answered, or when dialling it has failed.

    So a host that does not answer occupies none of the threads that work on hosts. At most `workers` hosts are dialled or
    worked on at the same time; hosts that are late do not count. A host is therefore dialled only when a thread will soon
    be free for it. This matters because sshd ends a connection without a login after two minutes, and penalizes this
    machine for it.

    targets   the hosts by their names
    sockets   how many may be open for dialling
    """

    def __init__(self, targets: Mapping[str, Target], workers: int, sockets: int = _DIALLED) -> None:
        self._targets = targets
        self._workers = workers
        self._limit = max(1, min(sockets, _DIALLED))
        self._lock = threading.Lock()
        self._left: deque[str] = deque()
        self._active: set[str] = set()  # hosts that have a thread, or will soon have one: at most `workers`
        self._results: dict[str, tuple[socket.socket | Exception | None, float]] = {}
        self._resolved: SimpleQueue[tuple[str, _Place | Exception | None]] = SimpleQueue()
        self._dialled: dict[str, _DialledHost] = {}  # used by the thread only
        self._cancelled = False
        self._waker, self._woken = socket.socketpair()  # a byte ends the thread's wait
        self._thread = threading.Thread(target=self._run, name="dialler", daemon=True)
        for one in (self._waker, self._woken):
            one.setblocking(False)

    def start(self, names: Sequence[str], ready: Callable[[str], None], late: Callable[[str], None]) -> None:
        """Dial these hosts, in this order. The two functions are called in the dialler's thread.

        ready   is called once for each host: then `take` returns its result
        late    is called for a host that has not answered after _LATE seconds
        """
        self._left.extend(names)
        self._ready, self._late = ready, late
        self._thread.start()

    def take(self, name: str) -> socket.socket | None:
        """The TCP connection to a host that is ready. None for a host behind a gateway, and if the connection is too old.

        Raises Unreachable and UsageError if dialling the host has failed.
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
        """Report that the thread that worked on this host is free for another host."""
        with self._lock:
            self._active.discard(name)
        self._wake()

    def cancel(self) -> None:
        """Stop dialling: all hosts that are left are reported as ready, without a connection."""
        self._cancelled = True
        self._wake()

    def close(self) -> None:
        """End the thread, and close the connections that `take` has not returned."""
        self._ready = self._late = lambda _: None
        self.cancel()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            for result, _ in self._results.values():
                if isinstance(result, socket.socket):
                    result.close()
            self._results.clear()
        self._waker.close()
        self._woken.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: the thread wakes anyway; closed: the thread has ended
            self._waker.send(b"!")

    def _run(self) -> None:
        try:
            self._dial()
        finally:  # also after an error of this thread: the threads that work on these hosts dial them
            while self._left:
                self._ready(self._left.popleft())

    def _dial(self) -> None:
        resolvers = ThreadPoolExecutor(_RESOLVERS, "resolver")
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            try:
                while not self._cancelled and (self._left or self._dialled):
                    self._begin_more(resolvers)
                    now = time.monotonic()
                    wake_at = min((now + _STALE, *(one.wake_at for one in self._dialled.values())))
                    for key, _ in selector.select(max(0.0, wake_at - now)):
                        if key.data is not None:
                            self._socket_ready(key.data, key.fileobj, selector)
                        else:
                            with contextlib.suppress(BlockingIOError):
                                self._woken.recv(4096)
                    while not self._resolved.empty():
                        self._name_resolved(*self._resolved.get())
                    self._check_times(selector)
            finally:
                resolvers.shutdown(wait=False, cancel_futures=True)
                for host in list(self._dialled.values()):
                    self._finish(host, None, None)  # the selector is closed with them

    def _begin_more(self, resolvers: ThreadPoolExecutor) -> None:
        while self._left and len(self._dialled) < self._limit:
            with self._lock:
                if len(self._active) >= self._workers:
                    return
                name = self._left.popleft()
                self._active.add(name)
            host = self._dialled[name] = _DialledHost(name)
            try:
                resolvers.submit(self._resolve, name)
            except RuntimeError:  # the system has no more threads: the one that works on the host asks, and dials
                self._finish(host, None, None)

    def _resolve(self, name: str) -> None:
        """Look up where to dial a host. This has threads of its own: DNS and commands of `Match exec` may be slow."""
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

    def _name_resolved(self, name: str, place: _Place | Exception | None) -> None:
        host = self._dialled.get(name)
        if host is None:  # left to the thread that works on the host
            return
        if isinstance(place, _Place):
            host.place, host.attempts = place, _Attempts(place.addresses, place.timeout)
        else:
            self._finish(host, place, None)

    def _socket_ready(self, host: _DialledHost, ready: Any, selector: selectors.BaseSelector) -> None:
        selector.unregister(ready)
        if host.attempts is None:  # the banner has arrived, or the connection has ended: the login reports that
            host.connection = None
            self._finish(host, ready, selector)
        elif host.attempts.is_connected(ready):
            assert host.place is not None
            for unused in host.attempts.close():
                selector.unregister(unused)
            host.attempts, host.connection = None, ready
            host.deadline = time.monotonic() + _BANNER_FACTOR * host.place.timeout
            selector.register(ready, selectors.EVENT_READ, host)

    def _check_times(self, selector: selectors.BaseSelector) -> None:
        """Begin the attempts that are to begin now, report the hosts that are late, and end those without more to try."""
        now = time.monotonic()
        for host in list(self._dialled.values()):
            if host.attempts is not None and (begun := host.attempts.begin_next(now)) is not None:
                selector.register(begun, selectors.EVENT_WRITE, host)
            if now >= host.late_at:
                host.late_at = float("inf")
                with self._lock:
                    self._active.discard(host.name)
                self._late(host.name)
            if host.place is not None and (error := host.error(now)) is not None:
                self._finish(host, error, selector)

    def _finish(
        self, host: _DialledHost, result: socket.socket | Exception | None, selector: selectors.BaseSelector | None
    ) -> None:
        """Report a host as ready. Without a connection or an error, the thread that works on it connects to it."""
        del self._dialled[host.name]
        unused = host.attempts.close() if host.attempts is not None else []
        if host.connection is not None:
            host.connection.close()
            unused.append(host.connection)
        for one in unused:
            if selector is not None:
                selector.unregister(one)
        with self._lock:
            self._active.add(host.name)
            self._results[host.name] = result, time.monotonic()
        self._ready(host.name)
