"""A network in memory between simulated processes: delays, cuts, lost connections.

It takes the place of the RPC sockets: `Link` has the calls of `RpcClient`, and serving processes get
`Call`s that look like the RPC server's requests. Messages of one connection arrive in order; a
connection that breaks leaves the caller not knowing whether the call was carried out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from placement.errors import PeerUnavailable
from placement.rpc.client import Reply
from placement.rpc.frames import RemoteError
from storage_node.port import Buffer
from tests.sim.loop import Process, VirtualLoop

log = logging.getLogger("sim.network")

NOTICE_SECONDS = 4.0
"""After so long without an answer to pings a connection is given up."""

Handlers = Mapping[int, Callable[[Any], Awaitable[None] | None]]


class Late:
    """The next call of a verb that a process makes is on its way until it is let arrive."""

    def __init__(self, verb: int, sender: str) -> None:
        self.verb = verb
        self.sender = sender
        self.arrive: Callable[[], None] | None = None
        """Lets it: known once it was sent."""


class Network:
    """Who reaches whom, and how fast."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.servers: dict[str, Server] = {}
        self.cut: set[frozenset[str]] = set()
        self.loss = 0.0
        """Share of calls whose connection breaks."""
        self.slow = 0.0
        """Share of messages that take up to seconds."""
        self.late: list[Late] = []

    def reaches(self, one: str, other: str) -> bool:
        return frozenset((one, other)) not in self.cut

    def makes_late(self, verb: int, sender: Process) -> Late | None:
        """Whether that call is one that was waited for."""
        for late in self.late:
            if late.verb == verb and late.sender == sender.name and late.arrive is None:
                return late
        return None

    def delay(self, sender: Process) -> float:
        """Of one message, drawn from the sender's stream."""
        if self.slow and sender.random.random() < self.slow:
            return sender.random.uniform(0.0, 2.5)
        return sender.random.uniform(0.0001, 0.003)


class Server:
    """One life of a serving process at an address."""

    def __init__(self, network: Network, process: Process, address: str, handlers: Handlers):
        self.network = network
        self.process = process
        self.address = address
        self.handlers = handlers
        self.links: list[Link] = []
        network.servers[address] = self
        process.on_death.append(self._died)

    def close(self) -> None:
        if self.network.servers.get(self.address) is self:
            del self.network.servers[self.address]

    def _died(self) -> None:
        self.close()
        for link in list(self.links):
            link.broken("the peer went")


class Connection:
    """What the server's handlers keep of a connection."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.on_close: list[Callable[[], None]] = []


class Call:
    """One request as a handler sees it."""

    def __init__(
        self, connection: Connection, verb: int, header: bytes, payload: bytes, answer: Any
    ):
        self.connection = connection
        self.verb = verb
        self.header = memoryview(header)
        self.payload = memoryview(payload)
        self.background = False
        self.deadline_ms = 0
        self.on_cancel = None
        self.open = True
        self._answer = answer

    def reply(self, header: Buffer = b"", payload: Sequence[Buffer] = ()) -> None:
        self.open = False
        self._answer(bytes(header), b"".join(payload), None)

    def fail(self, code: int, message: str) -> None:
        self.open = False
        self._answer(b"", b"", RemoteError(code, message))


class Link:
    """A client's connection to an address, dialled again when it broke. The calls of RpcClient."""

    def __init__(self, network: Network, process: Process, address: str) -> None:
        self._network = network
        self._process = process
        self._address = address
        self._server: Server | None = None
        self._connection = Connection()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._sent_until = 0.0
        self._answered_until = 0.0
        process.on_death.append(lambda: self.broken("we went"))

    async def call(
        self,
        verb: int,
        header: bytes = b"",
        payload: Sequence[Buffer] = (),
        *,
        timeout_seconds: float | None = 30.0,
        background: bool = False,
    ) -> Reply:
        """Raises PeerUnavailable, RemoteError."""
        network, process = self._network, self._process
        loop = network.loop
        server = network.servers.get(self._address)
        if server is None:
            await asyncio.sleep(process.random.uniform(0.0002, 0.02))
            raise PeerUnavailable(f"{self._address} refuses connections")
        if server is not self._server:
            self._connection, self._server = Connection(), server
            server.links.append(self)
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.add(answer)
        answer.add_done_callback(self._waiting.discard)
        data = b"".join(payload)
        breaks = network.loss and process.random.random() < network.loss
        lost = not network.reaches(process.name, server.process.name)
        if not lost:
            at = max(loop.time() + network.delay(process), self._sent_until)
            self._sent_until = at
            arguments = (server, self._connection, verb, header, data, answer)
            late = network.makes_late(verb, process)
            if late is None:
                loop.call_at(at, self._arrive, *arguments, context=server.process.context)
            else:
                context = server.process.context
                late.arrive = lambda: context.run(self._arrive, *arguments)
        patience = min(timeout_seconds or NOTICE_SECONDS, NOTICE_SECONDS if lost else 60.0)
        if breaks:
            loop.call_later(process.random.uniform(0.0, 0.01), self.broken, "the connection broke")
        try:
            async with asyncio.timeout(patience):
                got = await answer
        except TimeoutError:
            raise PeerUnavailable(f"{self._address} does not answer") from None
        if isinstance(got, Exception):
            raise got
        return Reply(memoryview(got[0]), memoryview(got[1]))

    async def close(self) -> None:
        """Give it up."""
        self.broken("closed")

    def broken(self, why: str) -> None:
        """Callers learn of it; the server drops what the connection had staged."""
        for answer in sorted(self._waiting, key=hash):
            if not answer.done() and self._process.alive:
                answer.set_result(PeerUnavailable(f"{self._address}: {why}"))
        self._waiting.clear()
        server, self._server = self._server, None
        if server is not None:
            if self in server.links:
                server.links.remove(self)
            closing = self._connection.on_close
            if server.process.alive:
                for callback in closing:
                    self._network.loop.call_later(0.05, callback, context=server.process.context)

    def _arrive(
        self,
        server: Server,
        connection: Connection,
        verb: int,
        header: bytes,
        payload: bytes,
        answer: "asyncio.Future[Any]",
    ) -> None:
        """Runs in the server's context."""
        network, process = self._network, server.process

        def back(head: bytes, body: bytes, error: Exception | None) -> None:
            if not process.alive or not network.reaches(process.name, self._process.name):
                return
            at = max(network.loop.time() + network.delay(process), self._answered_until)
            self._answered_until = at
            got = error if error is not None else (head, body)
            network.loop.call_at(at, _settle, answer, got, context=self._process.context)

        call = Call(connection, verb, header, payload, back)
        working = server.handlers[verb](call)
        if working is not None:
            process.start(_served(working, call))


async def _served(working: Awaitable[None], call: Call) -> None:
    try:
        await working
    except Exception as error:  # the RPC server answers so too
        log.exception("a handler of verb %d failed", call.verb)
        if call.open:
            call.fail(1, f"internal error: {error!r}")


def _settle(answer: "asyncio.Future[Any]", got: object) -> None:
    if not answer.done():
        answer.set_result(got)
