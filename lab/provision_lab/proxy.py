"""A TCP proxy that is far away: it delays both directions and counts, for rehearsing over a slow line.

with Proxy("198.18.0.10", 22, round_trip=0.1) as proxy:
    …  # connect to proxy.address, proxy.port
proxy.round_trips
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any

_CHUNK = 65536
Note = Callable[[int], None]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Listens on 127.0.0.1 and hands on to `host`:`port`, each byte `round_trip`/2 seconds later.

    connections   how many were made
    round_trips   how often the client spoke again after the server had answered, all connections together, and once
                  for each connection made: what a line of that length costs
    bytes_up, bytes_down   from and to the client
    """

    def __init__(self, host: str, port: int, *, round_trip: float, listen: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._delay = round_trip / 2
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lab-proxy", daemon=True)
        self.address, self.port = listen, 0
        self.connections = self.round_trips = self.bytes_up = self.bytes_down = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._wait(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.round_trips += 1  # the handshake: the kernel made it at once, so its delay is paid by hand
        await asyncio.sleep(2 * self._delay)
        talk = _Talk(self)
        opening = asyncio.ensure_future(self._open())
        up = asyncio.ensure_future(self._carry(reader, opening, talk.up, _nothing))
        try:
            there, back = await opening
            await asyncio.gather(up, self._carry(there, _now(there, writer), _nothing, talk.down))
            back.close()
        except OSError:  # nobody listens there
            writer.transport.abort()
        finally:
            up.cancel()
            writer.close()

    async def _open(self) -> Ends:
        await asyncio.sleep(self._delay)  # a server speaks when the handshake's last part has arrived
        return await asyncio.open_connection(*self._target)

    async def _carry(self, reader: asyncio.StreamReader, target: Awaitable[Ends], heard: Note, said: Note) -> None:
        """Reads at once and writes late, so that much may be under way, as on a real line."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)
        late = asyncio.ensure_future(self._deliver(under_way, target, said))
        try:
            while True:
                try:
                    data = await reader.read(_CHUNK)
                except ConnectionError:
                    data = b""
                heard(len(data))
                await under_way.put((self._loop.time() + self._delay, data))
                if not data:
                    break
            await late
        finally:
            late.cancel()

    async def _deliver(
        self, under_way: asyncio.Queue[tuple[float, bytes]], target: Awaitable[Ends], said: Note
    ) -> None:
        writer = (await target)[1]
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - self._loop.time())
            said(len(data))
            try:
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
            except OSError:  # the other end has gone; what it says itself ends the connection
                return


async def _now(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ends:
    """Ends that are there already."""
    return reader, writer


def _nothing(size: int) -> None:
    """Notes nothing."""


class _Talk:
    """Whose turn it was: a client that speaks after the server has waited a round trip for it."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy, self._answered = proxy, True

    def up(self, size: int) -> None:
        """The client said something."""
        self._proxy.bytes_up += size
        if size and self._answered:
            self._proxy.round_trips += 1
            self._answered = False

    def down(self, size: int) -> None:
        """The client heard something."""
        self._proxy.bytes_down += size
        self._answered = self._answered or size > 0
