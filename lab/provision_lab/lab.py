"""A lab: the hosts of one inventory with the services beside them, brought up and taken down as one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from provision_lab import bringup, cache, kernel, network, processes, repository, state
from provision_lab.bringup import Service
from provision_lab.hosts import LabHost, Server
from provision_lab.image import Image
from provision_lab.machine import wipe
from provision_lab.processes import locked
from provision_lab.run import LabError, require
from provision_lab.state import LabInfo

INVENTORY = Path(__file__).with_name("lab.toml")  # the inventory of the lab called `lab`
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")


class Lab(LabInfo):
    """Throwaway hosts with an apt repository, S3 and a certificate authority, below /var/lib/provision-lab/NAME.

    throwaway   the lab is taken down when this process ends, also by kill -9
    internet    its hosts reach beyond this machine, and their packages come from their system's own archive
    isolated    its hosts reach nothing but the lab; with `internet`: everything but the addresses in `forbidden`
    prepared    the folder of `preparing.ensure`, for prepared hosts; cannot be combined with `internet` or `ipv6`
    ipv6        its hosts and services have IPv6 addresses only; cannot be combined with `internet`
    """

    def __init__(
        self,
        name: str,
        hosts: Iterable[LabHost],
        *,
        image: Image | None = None,
        server: Server | None = None,
        throwaway: bool = False,
        subnet: str = "",
        internet: bool = False,
        ipv6: bool = False,
        isolated: bool = False,
        forbidden: Iterable[str] = (),
        prepared: Path | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise LabError(f"{name!r} cannot be a lab's name: at most 20 small letters, digits and dashes")
        if ipv6 and internet:
            raise LabError("a lab with IPv6 only cannot have internet access: its addresses are not translated")
        hosts = tuple(hosts)
        if any(host.prepared for host in hosts) and (prepared is None or internet or ipv6):
            raise LabError("prepared hosts need their folder, IPv4, and no internet access")
        owner = processes.identify(os.getpid()) if throwaway else None
        self._record = state.Record(
            name,
            subnet,
            hosts,
            image or Image(),
            server or Server(),
            owner,
            internet=internet,
            ipv6=ipv6,
            isolated=isolated,
            forbidden=tuple(forbidden),
            prepared=str(prepared or ""),
        )

    @classmethod
    def find(cls, name: str) -> Lab | None:
        """The lab of that name, complete or not; None when this machine has nothing of it."""
        if not state.root().joinpath(name).is_dir():
            return None
        lab = cls(name, ())
        lab._record = state.load(name) or lab._record
        return lab

    @property
    def is_up(self) -> bool:
        """Whether every part came up and every host answers."""
        return self._record.complete and all(machine.answers for machine in self.machines)

    def up(self, report: Callable[[str], None] = lambda _: None) -> bool:
        """Brings the lab up; False when it was up already. `report` is called with each step.

        Raises LabUnavailable where this machine cannot have a lab, LabError when a step fails. Nothing is left then.
        """
        require(build=False)
        sweep()
        cache.clear_drafts()
        with _plain_umask(), self._held():
            there = Lab.find(self.name)
            if there and there.is_up:
                if not _same(there._record, self._record):
                    text = f"lab {self.name} is up, but its hosts, system, internet access or server differ from this request"
                    raise LabError(text, hint=f"take it down first: provision lab down --name {self.name}")
                self._record = there._record
                return False
            if there:
                there._clear()
            self._make(report)
        return True

    def down(self) -> None:
        """Removes the lab: processes, mounts, bridge, files. No error when it is incomplete or does not exist."""
        require(build=False)
        with self._held():
            self._clear()

    def stop(self, service: Service) -> None:
        """Ends apt or S3, as if its machine had failed. S3 loses its contents."""
        bringup.stop(self, service)

    def start(self, service: Service) -> None:
        """Starts apt or S3 again, and waits until it answers."""
        bringup.start(self, service)
        bringup.wait_for(self, service)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """One process at a time brings this lab up or down."""
        with _locked_in_root(f"{self.name}.lock"):
            yield

    def _make(self, report: Callable[[str], None]) -> None:
        image = self._record.image
        if not image.is_built:
            report(f"build the base image ({image.suite}), once: about a minute")
        base = image.ensure() / "root"
        packages = repository.ensure(image)
        try:
            self._reserve()
            report(f"boot {len(self.hosts)} hosts")
            bringup.bring_up(self, base, packages)
            self._record = replace(self._record, complete=True)
            self._record.save()
        except BaseException:
            self._clear()
            raise

    def _reserve(self) -> None:
        """Records the lab with a free subnet and its hosts' addresses, and creates its bridge."""
        with locked(_subnets()):
            others = _others(self.name)
            taken = [other.subnet for other in others]
            subnet = self._record.subnet or network.free_subnet(self.name, taken, ipv6=self._record.ipv6)
            hosts = tuple(_addressed(self.hosts, subnet))
            wanted = kernel.ALWAYS | (kernel.FORWARDING if self.internet else {})
            before = kernel.too_low(wanted, [other.kernel for other in others])
            self._record = replace(self._record, subnet=subnet, hosts=hosts, kernel=before)
            self._record.save()
            kernel.apply(wanted, before)
            network.add_bridge(network.bridge_name(self.name), self.gateway)
            if self._record.isolated:
                forbidden = self._record.forbidden if self.internet else None
                network.isolate(self.name, self.gateway, forbidden)
            if self.internet:
                network.allow_out(self.name, subnet)

    def _clear(self) -> None:
        processes.end(processes.of_lab(self.folder))
        kernel.remove_cgroup(f"provision-{self.name}")
        network.remove_bridge(network.bridge_name(self.name))
        network.forget_rules(self.name)
        with locked(_subnets()):  # which also removes the lock file of a process that was killed
            kernel.restore(self._record.kernel, [other.kernel for other in _others(self.name)])
            (self.folder / "lab.json").unlink(
                missing_ok=True
            )  # the next lab sees that this one needs no setting any more
        wipe(self.name, self.folder)


def _others(name: str) -> list[state.Record]:
    """The records of all labs but this one."""
    return [record for other in state.names() if other != name and (record := state.load(other))]


def _addressed(hosts: Iterable[LabHost], subnet: str) -> Iterator[LabHost]:
    """The hosts with addresses: their own, or the next free one."""
    used = {host.address for host in hosts}
    free = (address for address in network.host_addresses(subnet) if address not in used)
    for host in hosts:
        if not (address := host.address or next(free, "")):
            raise LabError(f"{subnet} has no address for {host.name}", hint="a lab has at most 245 hosts")
        yield replace(host, address=address)


@contextlib.contextmanager
def _plain_umask() -> Iterator[None]:
    """Makes folders of hosts and packages readable, whatever the caller's umask is."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def _subnets() -> Path:
    """The lock file that is held while a subnet is chosen."""
    return state.root() / ".subnets.lock"


def _same(there: state.Record, asked: state.Record) -> bool:
    """Whether the lab is the requested one. Where no address was requested, any address is accepted."""
    addressed = [
        replace(two, address=two.address or one.address) for one, two in zip(there.hosts, asked.hosts, strict=False)
    ]
    if len(there.hosts) != len(asked.hosts) or list(there.hosts) != addressed:
        return False
    return _system(there) == _system(asked)


def _system(record: state.Record) -> tuple[object, ...]:
    return record.image, record.server, record.internet, record.ipv6, record.isolated, record.prepared


def sweep() -> list[str]:
    """Takes down the labs whose owner is dead and returns their names. Labs without an owner are never touched.

    One process sweeps at a time: a second one would wait for the first one's labs only to find nothing.
    """
    if not any(_is_orphan(name) for name in state.names()):
        return []
    swept = []
    with _locked_in_root(".sweep.lock"):
        for name in filter(_is_orphan, state.names()):
            if lab := Lab.find(name):
                lab.down()
                swept.append(name)
    return swept


def _is_orphan(name: str) -> bool:
    record = state.load(name)
    return record is not None and record.owner is not None and not record.owner.is_alive


@contextlib.contextmanager
def _locked_in_root(name: str) -> Iterator[None]:
    """Holds a lock file in the state root; the root is removed with the last lab."""
    try:
        with locked(state.root() / name):
            yield
    finally:
        with contextlib.suppress(OSError):  # other labs are in it
            state.root().rmdir()
