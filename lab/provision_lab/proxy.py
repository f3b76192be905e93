"""A TCP proxy with latency: it delays both directions and counts round trips and bytes.

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
Count = Callable[[int], None]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Listens on 127.0.0.1 and forwards to `host`:`port`, each byte `round_trip`/2 seconds later.

    connections   number of connections
    round_trips   how often the client sent again after the server had answered, plus one for each connection: the
                  number of round trips that a connection with this latency costs
    bytes_up      bytes from the client
    bytes_down    bytes to the client
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
        self.round_trips += 1  # the handshake: the kernel answered at once, so its delay is added here
        await asyncio.sleep(2 * self._delay)
        counter = _Counter(self)
        opening = asyncio.ensure_future(self._open())
        up = asyncio.ensure_future(self._carry(reader, opening, counter.up, _ignore))
        try:
            there, back = await opening
            await asyncio.gather(up, self._carry(there, _now(there, writer), _ignore, counter.down))
            back.close()
        except OSError:  # the target refuses the connection
            writer.transport.abort()
        except asyncio.CancelledError:  # the proxy closes; asyncio of Python 3.11 logs a cancelled handler as an error
            writer.transport.abort()
        finally:
            up.cancel()
            writer.close()

    async def _open(self) -> Ends:
        await asyncio.sleep(self._delay)  # a server sends when the last packet of the handshake has arrived
        return await asyncio.open_connection(*self._target)

    async def _carry(
        self, reader: asyncio.StreamReader, target: Awaitable[Ends], received: Count, delivered: Count
    ) -> None:
        """Reads at once and writes late, so that data can be in flight, as on a real connection."""
        in_flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)
        late = asyncio.ensure_future(self._deliver(in_flight, target, delivered))
        try:
            while True:
                try:
                    data = await reader.read(_CHUNK)
                except ConnectionError:
                    data = b""
                received(len(data))
                await in_flight.put((self._loop.time() + self._delay, data))
                if not data:
                    break
            await late
        finally:
            late.cancel()

    async def _deliver(
        self, in_flight: asyncio.Queue[tuple[float, bytes]], target: Awaitable[Ends], delivered: Count
    ) -> None:
        writer = (await target)[1]
        while True:
            due, data = await in_flight.get()
            await asyncio.sleep(due - self._loop.time())
            delivered(len(data))
            try:
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
            except OSError:  # the other end has closed; the other direction ends the connection
                return


async def _now(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ends:
    """Ends that are open already."""
    return reader, writer


def _ignore(size: int) -> None:
    """Counts nothing."""


class _Counter:
    """Counts a round trip whenever the client sends after the server has answered."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy, self._answered = proxy, True

    def up(self, size: int) -> None:
        """The client sent `size` bytes."""
        self._proxy.bytes_up += size
        if size and self._answered:
            self._proxy.round_trips += 1
            self._answered = False

    def down(self, size: int) -> None:
        """The client received `size` bytes."""
        self._proxy.bytes_down += size
        self._answered = self._answered or size > 0
