"""The framed protocol: frames, calls, streams, limits and loss."""

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from placement.errors import PeerUnavailable, ProtocolError
from placement.rpc.client import RpcClient
from placement.rpc.frames import (
    FRAME_HEADER,
    AnswerLost,
    ErrorCode,
    Hello,
    Kind,
    NotSent,
    RemoteError,
    decode_error,
    decode_hello,
    encode_error,
    encode_hello,
)
from placement.rpc.framing import FramedProtocol
from placement.rpc.handshake import Handshake
from placement.rpc.server import Request, RpcServer
from tests.waiting import eventually_async

T = TypeVar("T")
ECHO, SLOW, FAIL, RAISE, COUNT, NEVER, TASK = range(1, 8)


LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [uvloop.new_event_loop]


@pytest.fixture(autouse=True, params=[asyncio.new_event_loop, uvloop.new_event_loop])
def loop_kind(request: pytest.FixtureRequest) -> None:
    """Both event loops, since a process may run either."""
    LOOPS[0] = request.param


def run(scene: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=LOOPS[0]) as runner:
        return runner.run(scene)


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="rpc") as path:
        yield path


def handlers(seen: list[Request]) -> dict[int, Callable[[Request], Awaitable[None] | None]]:
    def echo(request: Request) -> None:
        request.reply(bytes(request.header), (request.payload,))

    async def slow(request: Request) -> None:
        await asyncio.sleep(0.02)
        request.reply(b"late")

    def fail(request: Request) -> None:
        request.fail(77, "no such thing")

    async def raises(request: Request) -> None:
        raise KeyError("inside")

    def count(request: Request) -> None:
        seen.append(request)
        for index in range(int(bytes(request.header))):
            request.push(str(index).encode())
        if not request.background and bytes(request.payload) != b"open":
            request.end()

    def never(request: Request) -> None:
        seen.append(request)

    async def task(request: Request) -> None:
        seen.append(request)
        await asyncio.Event().wait()

    return {
        ECHO: echo,
        SLOW: slow,
        FAIL: fail,
        RAISE: raises,
        COUNT: count,
        NEVER: never,
        TASK: task,
    }


@asynccontextmanager
async def pair(folder: str, seen: list[Request] | None = None):  # type: ignore[no-untyped-def]
    path = os.path.join(folder, "s")
    server = RpcServer(handlers([] if seen is None else seen), name="server")
    await server.listen_unix(path)
    client = await RpcClient.connect(path, name="client")
    try:
        yield server, client, path
    finally:
        await client.close()
        await server.close(drain_seconds=0.05)


@pytest.mark.parametrize("size", [0, 1, 1000, 16383, 16384, 70_000, 300_000, 3_000_000])
def test_a_payload_of_any_size_comes_back_equal(folder: str, size: int) -> None:
    async def scene() -> None:
        async with pair(folder) as (_, client, _path):
            payload = os.urandom(size)
            half = size // 2
            replies = await asyncio.gather(
                *(client.call(ECHO, b"h%d" % i, (payload[:half], payload[half:])) for i in range(5))
            )
            for index, reply in enumerate(replies):
                assert reply.header == b"h%d" % index
                assert reply.payload == payload

    run(scene())


def test_answers_find_their_calls_out_of_order(folder: str) -> None:
    async def scene() -> None:
        async with pair(folder) as (_, client, _path):
            slow = client.call(SLOW, b"")
            fast = await client.call(ECHO, b"fast")
            assert fast.header == b"fast"
            assert not slow.done()
            assert (await slow).header == b"late"

    run(scene())


def test_errors_arrive_with_their_code(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with pair(folder) as (_, client, _path):
            for verb, code in (
                (FAIL, 77),
                (RAISE, ErrorCode.INTERNAL),
                (999, ErrorCode.UNKNOWN_VERB),
            ):
                with pytest.raises(RemoteError) as caught:
                    await client.call(verb, b"")
                assert caught.value.code == code

    run(scene())
    assert "a handler failed" in caplog.text


def test_a_call_past_its_time_is_lost_and_cancelled_at_the_peer(folder: str) -> None:
    async def scene() -> None:
        seen: list[Request] = []
        cancelled = []
        async with pair(folder, seen) as (_, client, _path):
            call = client.call(NEVER, b"", timeout_seconds=0.08)
            await eventually_async(lambda: bool(seen))
            seen[0].on_cancel = lambda: cancelled.append(True)
            with pytest.raises(AnswerLost):
                await call
            await eventually_async(lambda: bool(cancelled))
            assert not seen[0].open
            seen[0].reply(b"too late")
            assert (await client.call(ECHO, b"x")).header == b"x"

    run(scene())


def test_cancelling_the_caller_cancels_the_task_at_the_peer(folder: str) -> None:
    async def scene() -> None:
        seen: list[Request] = []
        async with pair(folder, seen) as (_, client, _path):
            call = client.call(TASK, b"")
            await eventually_async(lambda: bool(seen))
            tasks = seen[0].connection.tasks
            assert len(tasks) == 1
            call.cancel()
            await eventually_async(lambda: tasks[0].done())
            assert tasks[0].cancelled()

    run(scene())


def test_a_stream_ends_and_a_closed_one_is_cancelled(folder: str) -> None:
    async def scene() -> None:
        seen: list[Request] = []
        async with pair(folder, seen) as (_, client, _path):
            elements = [bytes(reply.header) async for reply in client.stream(COUNT, b"5")]
            assert elements == [b"0", b"1", b"2", b"3", b"4"]
            stream = client.stream(COUNT, b"3", (b"open",))
            assert (await anext(stream)).header == b"0"
            assert seen[1].open
            await stream.aclose()
            await eventually_async(lambda: not seen[1].open)

    run(scene())


def test_a_consumer_that_falls_behind_loses_its_stream(folder: str) -> None:
    async def scene() -> None:
        seen: list[Request] = []
        async with pair(folder, seen) as (_, client, _path):
            stream = client.stream(COUNT, b"9000")
            await anext(stream)
            await asyncio.sleep(0.2)
            with pytest.raises(AnswerLost):
                async for _ in stream:
                    pass

    run(scene())


def test_a_broken_connection_fails_open_calls_and_comes_back(folder: str) -> None:
    async def scene() -> None:
        seen: list[Request] = []
        down: list[bool] = []
        async with pair(folder, seen) as (server, client, path):
            client.on_disconnect.append(lambda: down.append(True))
            call = client.call(NEVER, b"")
            await eventually_async(lambda: bool(seen))
            await server.close(drain_seconds=0)
            with pytest.raises(AnswerLost):
                await call
            assert down == [True]
            assert not client.connected
            with pytest.raises(NotSent):
                await client.call(ECHO, b"")
            again = RpcServer(handlers(seen), name="again")
            await again.listen_unix(path)
            await eventually_async(lambda: client.connected)
            assert (await client.call(ECHO, b"x")).header == b"x"
            await again.close(drain_seconds=0)

    run(scene())


def test_connecting_to_nobody_gives_up_in_time(folder: str) -> None:
    async def scene() -> None:
        with pytest.raises(PeerUnavailable):
            await RpcClient.connect(os.path.join(folder, "none"), name="c", timeout_seconds=0.1)

    run(scene())


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(folder: str) -> None:
    async def scene() -> None:
        path = os.path.join(folder, "s")
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(path)
        stale.close()
        server = RpcServer({}, name="one")
        await server.listen_unix(path)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(OSError, match="another process"):
            await RpcServer({}, name="two").listen_unix(path)
        await server.close(drain_seconds=0)
        Path(path).write_text("a file")  # noqa: ASYNC240 — a tiny file
        with pytest.raises(FileExistsError):
            await RpcServer({}, name="three").listen_unix(path)

    run(scene())


def test_too_large_a_request_is_refused_and_too_large_an_answer_is_an_error(folder: str) -> None:
    async def scene() -> None:
        def big(request: Request) -> None:
            request.reply(b"", (bytes(17 << 20),))

        path = os.path.join(folder, "s")
        server = RpcServer({1: big}, name="server")
        await server.listen_unix(path)
        client = await RpcClient.connect(path, name="client")
        with pytest.raises(ValueError, match="beyond"):
            client.call(1, b"", (bytes(17 << 20),))
        with pytest.raises(RemoteError) as caught:
            await client.call(1, b"")
        assert caught.value.code == ErrorCode.REPLY_TOO_LARGE
        await client.close()
        await server.close(drain_seconds=0)

    run(scene())


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        FRAME_HEADER.pack(5, 1, 1, Kind.CALL, 0, 5, 0) + b"hello",
        FRAME_HEADER.pack((16 << 20) + 1, 0, 0, Kind.HELLO, 0, 20, 0),
        FRAME_HEADER.pack(20, 0, 0, Kind.HELLO, 0, 20, 0) + bytes(20),
        FRAME_HEADER.pack(3, 0, 0, Kind.HELLO, 0, 9, 0) + bytes(9),
    ],
)
def test_a_peer_that_does_not_speak_the_protocol_is_cut_off(folder: str, garbage: bytes) -> None:
    async def scene() -> None:
        async with pair(folder) as (_, client, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(garbage)
            async with asyncio.timeout(5):
                with suppress(ConnectionError):
                    await reader.read()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            assert (await client.call(ECHO, b"still here")).header == b"still here"

    run(scene())


def test_a_peer_that_does_not_read_is_not_read_from(folder: str) -> None:
    async def scene() -> None:
        async with pair(folder) as (server, _, path):
            reader, writer = await asyncio.open_unix_connection(path, limit=1 << 16)
            header, payload = encode_hello("mute")
            size = len(header) + len(payload)
            writer.write(
                FRAME_HEADER.pack(size, 0, 0, Kind.HELLO, 0, len(header), 0) + header + payload
            )
            call = bytes(256 << 10)
            for index in range(1, 200):
                writer.write(FRAME_HEADER.pack(len(call), index, ECHO, Kind.CALL, 0, 0, 0) + call)
            await asyncio.sleep(0.3)
            mute = next(c for c in server.connections if c.peer_name == "mute")
            assert not mute._reading
            assert mute.protocol._outgoing_size_bytes < 8 << 20
            got = 0
            async with asyncio.timeout(20):
                while got < 199 * len(call):
                    got += len(await reader.read(1 << 20))
            writer.close()
            await writer.wait_closed()

    run(scene())


class _Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


def _cut(stream: bytes, pieces: list[int]) -> list[tuple[int, int, bytes, bytes]]:
    """What a receiver makes of a byte stream that arrives in such pieces."""

    async def scene() -> list[tuple[int, int, bytes, bytes]]:
        frames: list[tuple[int, int, bytes, bytes]] = []
        hellos: list[Hello] = []
        protocol = FramedProtocol(
            handshake=Handshake("x"),
            receive=lambda kind, rid, verb, flags, deadline, header, payload: frames.append(
                (rid, verb, bytes(header), bytes(payload))
            ),
            opened=hellos.append,
            lost=lambda error: None,
        )
        wire = _Wire()
        protocol.connection_made(wire)
        position, turn = 0, 0
        while position < len(stream):
            room = protocol.get_buffer(-1)
            size = min(len(room), pieces[turn % len(pieces)], len(stream) - position)
            room[:size] = stream[position : position + size]
            protocol.buffer_updated(size)
            position += size
            turn += 1
        assert not wire.aborted
        assert [hello.name for hello in hellos] == ["peer"]
        return frames

    return run(scene())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 40_000)), max_size=6),
    st.lists(st.integers(1, 70_000), min_size=1, max_size=5),
)
def test_frames_are_the_same_however_the_bytes_arrive(
    messages: list[tuple[bytes, int]], pieces: list[int]
) -> None:
    header, payload = encode_hello("peer")
    stream = FRAME_HEADER.pack(len(header) + len(payload), 0, 0, Kind.HELLO, 0, len(header), 0)
    stream += header + payload
    expected = []
    for index, (head, size) in enumerate(messages, 1):
        body = bytes([index]) * size
        stream += FRAME_HEADER.pack(len(head) + size, index, 7, Kind.CALL, 0, len(head), 0)
        stream += head + body
        expected.append((index, 7, head, body))
    trailing = FRAME_HEADER.pack(50, 99, 7, Kind.CALL, 0, 0, 0)
    assert _cut(stream + trailing, pieces) == expected
    if len(stream) < 2000:
        assert _cut(stream, [1]) == expected


def test_frame_hello_and_error_have_their_golden_bytes() -> None:
    assert FRAME_HEADER.pack(7, 2, 3, Kind.CALL, 1, 4, 5).hex() == (
        "070000000200000000000000030001010400000005000000"
    )
    header, payload = encode_hello("node")
    assert header.hex() == "4f535452414b4100010001000000000000000000"
    assert payload == b"node"
    assert encode_error(77, "é").hex() == "4d000000c3a9"


def test_hello_and_error_refuse_what_they_cannot_read() -> None:
    header, payload = encode_hello("node")
    assert decode_hello(header + b"later fields", payload).name == "node"
    for bad in (b"", header[:-1], b"X" + header[1:], header[:8] + b"\x02\x00\x03\x00" + bytes(8)):
        with pytest.raises(ProtocolError):
            decode_hello(bad, payload)
    with pytest.raises(ProtocolError):
        decode_error(b"abc")
