"""The connection to a Dask scheduler, and the workers there that can run the hosts."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from provision import __version__
from provision.cluster import worker
from provision.cluster.shipment import Sealed
from provision.cluster.worker import Prepared
from provision.errors import UsageError

CONNECT_SECONDS: Final = 20.0  # for the scheduler to answer
WORKERS_SECONDS: Final = 60.0  # for the first worker to join the cluster
POLL_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 5.0
_INSTALL: Final = "install the same version of provision on every worker, with the extra dask"


class Scheduler:
    """A Dask scheduler.

    address  tcp://… or tls://…
    report   prints a line
    """

    def __init__(self, address: str, report: Callable[[str], None]) -> None:
        self.address = scheduler_address(address)
        self.report = report
        self.run_id = secrets.token_hex(8)
        self._client: Any = None

    @property
    def is_encrypted(self) -> bool:
        """Whether secrets may be sent."""
        return self.address.startswith("tls://")

    @property
    def is_closed(self) -> bool:
        """Whether Dask has given up the connection."""
        return self._client.status in ("closed", "closing")

    async def connect(self) -> None:
        """Connects. Raises UsageError."""
        from distributed import Client

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it would print is reported here
        make: Callable[..., Any] = Client
        try:
            self._client = await make(
                self.address,
                asynchronous=True,
                set_as_default=False,
                timeout=CONNECT_SECONDS,
                name="provision",
            )
        except Exception as error:
            raise UsageError(
                f"no Dask scheduler can be used at {self.address}: {in_words(error)}",
                hint="start one: dask scheduler; for tls://, set DASK_DISTRIBUTED__COMM__TLS__CA_FILE and "
                "…__TLS__CLIENT__CERT and …__KEY (docs/cluster.md)",
            ) from error

    async def addresses(self) -> list[str]:
        """The addresses of all workers."""
        found: dict[str, int] = await self._client.nthreads()
        return sorted(found)

    async def first_workers(self) -> list[str]:
        """Waits until there are workers. Raises UsageError if there are none, or some without TLS."""
        until, reported = time.monotonic() + WORKERS_SECONDS, False
        while not (found := await self.addresses()):
            if not reported:
                reported = True
                self.report(f"waiting for workers of {self.address}, for at most {WORKERS_SECONDS:.0f} s")
            if time.monotonic() > until:
                raise UsageError(
                    f"the Dask scheduler at {self.address} has no workers",
                    hint=f"start some: dask worker {self.address} --nthreads 1",
                )
            await asyncio.sleep(POLL_SECONDS)
        if self.is_encrypted and (plain := [one for one in found if not one.startswith("tls://")]):
            raise UsageError(
                f"workers that are not reached over TLS: {', '.join(plain)}",
                hint="start them with --protocol tls; secrets are sent over TLS only",
            )
        return found

    async def prepare(self, addresses: list[str], sealed: Sealed, tasks: int) -> None:
        """Sends the estate to these workers. Raises UsageError if one of them cannot run the hosts.

        tasks  the fingerprint of the plays
        """
        versions = await self.call(worker.version, addresses)
        for address, found in versions.items():
            if isinstance(found, ImportError):
                raise UsageError(f"the worker {address} has no provision {__version__}: {found}", hint=_INSTALL)
            if found != __version__:
                raise UsageError(
                    f"the worker {address} has provision {found}, and this is {__version__}"
                    if isinstance(found, str)
                    else f"the worker {address} does not answer: {in_words(found)}",
                    hint=_INSTALL,
                )
        answers = await self.call(worker.prepare, addresses, self.run_id, sealed)
        missing: dict[tuple[str, ...], list[str]] = {}
        for address, answer in answers.items():
            if isinstance(answer, Prepared) and answer.missing:
                missing.setdefault(answer.missing, []).append(address)
        if missing:
            lines = [f"not on {', '.join(these)}: {', '.join(files)}" for files, these in missing.items()]
            raise UsageError(
                "\n".join(["local files that this run needs are missing on workers", *lines]),
                hint="copy them to the same paths on the workers, or use a shared folder; SSH keys are never sent",
            )
        for address, answer in answers.items():
            if not isinstance(answer, Prepared):
                raise UsageError(f"the worker {address} cannot prepare the run: {in_words(answer)}", hint=_INSTALL)
            if answer.error:
                raise UsageError(f"the worker {address}: {answer.error}", hint=answer.hint)
            if answer.tasks != tasks:
                raise UsageError(
                    f"the worker {address} would run other tasks than this machine",
                    hint="install the same versions of the distributions with tasks there",
                )

    async def call(self, function: Callable[..., Any], addresses: list[str], *arguments: Any) -> dict[str, Any]:
        """Calls a function on workers. Returns its result or the exception, by address."""
        found: dict[str, Any] = await self._client.run(function, *arguments, workers=addresses, on_error="return")
        return found

    async def close(self, workers: list[str]) -> None:
        """Ends the run on these workers, or on all if the list is empty, and disconnects."""

        async def finish() -> None:
            await self.call(worker.finish, workers or await self.addresses(), self.run_id)

        for one in (finish, self._client.close):
            with suppress(Exception):  # the scheduler may be gone; then workers remove the files after some time
                await asyncio.wait_for(one(), _CLOSE_SECONDS)

    def submit(self, number: int, address: str, hosts: list[str], *, again: bool) -> Any:
        """Starts the Dask task with this number on a worker. Returns its future."""
        return self._client.submit(
            worker.work,
            self.run_id,
            number,
            hosts,
            again,
            key=f"provision-{self.run_id}-{number}",
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )


def scheduler_address(text: str) -> str:
    """The address of a scheduler: `tls://host:port`, `tcp://host:port`. Raises UsageError for another form."""
    address = text if "://" in text else f"tcp://{text}"
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in ("tcp", "tls") or not host or not port.isdigit():
        raise UsageError(
            f"--dask {text}: not the address of a Dask scheduler", hint="write tls://HOST:8786, or tcp://HOST:8786"
        )
    return address


def in_words(error: Any) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
