"""Unary calls over HTTP/2, against a peer that says exactly what a test wants it to say."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import hpack
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from placement.metastore.etcd import frames
from placement.metastore.etcd.answers import CallFailed, Verdict, verdict_of
from placement.metastore.etcd.calls import Http2Calls
from placement.metastore.etcd.frames import Frame, FrameError, HeaderReader, frame, take_frames

PATH = "/etcdserverpb.KV/Txn"


class Peer:
    """The other side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._buffer = bytearray()
        self._frames: list[Frame] = []
        self.writer = writer
        self.headers = hpack.Encoder()

    async def greet(self, settings: dict[int, int] | None = None) -> None:
        assert await self._reader.readexactly(len(frames.PREFACE)) == frames.PREFACE
        self.writer.write(frames.settings(settings or {}))

    async def next(self, *kinds: int) -> Frame:
        """The next frame of one of these kinds."""
        while True:
            while not self._frames:
                data = await self._reader.read(1 << 16)
                if not data:
                    raise EOFError
                self._buffer += data
                self._frames = take_frames(self._buffer)
            got = self._frames.pop(0)
            if got.kind in kinds:
                return got

    async def request(self) -> tuple[int, dict[str, str], bytes]:
        """A whole call: stream, headers, message."""
        head = await self.next(frames.HEADERS)
        headers = {str(k): str(v) for k, v in hpack.Decoder().decode(head.payload)}
        body = b""
        while True:
            got = await self.next(frames.DATA)
            body += got.payload
            if got.flags & frames.END_STREAM:
                return head.stream, headers, frames.the_message(body)

    def answer(self, stream: int, message: bytes, status: str = "0", said: str = "") -> bytes:
        body = frames.message_frame(message)
        size = frames.FRAME_SIZE_BYTES_DEFAULT
        return (
            self.head(stream, [(":status", "200"), ("content-type", "application/grpc")])
            + b"".join(
                frame(frames.DATA, 0, stream, body[at : at + size])
                for at in range(0, len(body), size)
            )
            + self.head(stream, [("grpc-status", status), ("grpc-message", said)], last=True)
        )

    def head(self, stream: int, fields: list[tuple[str, str]], *, last: bool = False) -> bytes:
        flags = frames.END_HEADERS | (frames.END_STREAM if last else 0)
        return frame(frames.HEADERS, flags, stream, self.headers.encode(fields))


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def served(*scripts: Script) -> AsyncIterator[Http2Calls]:
    """One script a connection, in order of arrival."""
    left = list(scripts)
    running: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append(task)
        try:
            await left.pop(0)(Peer(reader, writer))
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    calls = Http2Calls(f"127.0.0.1:{port}", None)
    try:
        yield calls
    finally:
        calls.close()
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await scene()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


async def ask(calls: Http2Calls, message: bytes = b"question", seconds: float = 5.0) -> bytes:
    return await calls.call(
        PATH, message, timeout_seconds=seconds, metadata=(("token", "t" * 300),)
    )


async def failure(calls: Http2Calls, seconds: float = 5.0) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await ask(calls, seconds=seconds)
    return caught.value


def test_a_call_is_what_grpc_says_it_is() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(3):
            stream, headers, message = await peer.request()
            assert headers[":method"] == "POST"
            assert headers[":scheme"] == "http"
            assert headers[":path"] == PATH
            assert headers[":authority"].startswith("127.0.0.1:")
            assert headers["content-type"] == "application/grpc"
            assert headers["te"] == "trailers"
            assert headers["token"] == "t" * 300
            assert 5000 <= int(headers["grpc-timeout"].removesuffix("m")) <= 5200
            peer.writer.write(peer.answer(stream, message.upper()))
        await peer.next(frames.RST_STREAM)

    async def scene() -> None:
        async with served(script) as calls:
            for text in (b"question", b"", b"x" * 10_000):
                assert await ask(calls, text) == text.upper()

    run(scene)


def test_answers_come_in_any_order_and_in_any_pieces() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        asked = [await peer.request() for _ in range(4)]
        said = b"".join(
            peer.answer(stream, message * 9000) for stream, _, message in reversed(asked)
        )
        for at in range(0, len(said), 7919):
            peer.writer.write(said[at : at + 7919])
            await peer.writer.drain()
            await asyncio.sleep(0)
        for byte in peer.answer((await peer.request())[0], b"slow"):
            peer.writer.write(bytes((byte,)))
            await asyncio.sleep(0.0005)
        await peer.next(frames.PING)

    async def scene() -> None:
        async with served(script) as calls:
            asked = [b"a", b"bb", b"ccc", b"dddd"]
            answers = await asyncio.gather(*(ask(calls, text) for text in asked))
            assert answers == [text * 9000 for text in asked]
            assert await ask(calls) == b"slow"

    run(scene)


def test_windows_are_kept_to() -> None:
    """A message much larger than both windows; one call's shut window holds no other up."""

    async def script(peer: Peer) -> None:
        await peer.greet({frames.INITIAL_WINDOW_SIZE: 1000})
        first = (await peer.next(frames.HEADERS)).stream
        got = await peer.next(frames.DATA)
        assert (got.stream, len(got.payload)) == (first, 1000)
        second, _, message = await peer.request()
        assert second != first
        peer.writer.write(peer.answer(second, message))
        body, window = got.payload, 65_535 - 1000 - 13
        while not got.flags & frames.END_STREAM:
            peer.writer.write(frames.window_update(first, 30_000))
            allowed = 30_000
            if window < allowed:
                peer.writer.write(frames.window_update(0, 100_000))
                window += 100_000
            while allowed and not got.flags & frames.END_STREAM:
                got = await peer.next(frames.DATA)
                assert got.stream == first
                allowed -= len(got.payload)
                window -= len(got.payload)
                assert allowed >= 0
                assert window >= 0
                body += got.payload
        peer.writer.write(peer.answer(first, b"%d" % len(frames.the_message(body))))
        await peer.next(frames.PING)

    async def scene() -> None:
        async with served(script) as calls:
            large = asyncio.create_task(ask(calls, bytes(400_000)))
            await asyncio.sleep(0.05)
            assert await ask(calls) == b"question"
            assert await large == b"400000"

    run(scene)


def test_the_connections_own_window_is_opened_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        opened = frames.read_number((await peer.next(frames.WINDOW_UPDATE)).payload)
        assert opened > 1 << 29
        for _ in range(2):
            stream, _, _ = await peer.request()
            peer.writer.write(peer.answer(stream, b"ok"))

    async def scene() -> None:
        async with served(script) as calls:
            assert [await ask(calls), await ask(calls)] == [b"ok", b"ok"]

    run(scene)


def test_what_etcd_refuses_is_told_with_its_words() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream, _, _ = await peer.request()
        said = "etcdserver: duplicate key given in txn request"
        only = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "3"),
            ("grpc-message", said),
        ]
        peer.writer.write(peer.head(stream, only, last=True))
        stream, _, _ = await peer.request()
        peer.writer.write(peer.head(stream, [(":status", "502")], last=True))
        stream, _, _ = await peer.request()
        peer.writer.write(peer.answer(stream, b"", "14", "100%25 lost"))
        await peer.next(frames.PING)

    async def scene() -> None:
        async with served(script) as calls:
            refused = await failure(calls)
            assert refused.status is grpc.StatusCode.INVALID_ARGUMENT
            assert verdict_of(refused) is Verdict.REFUSED
            assert "502" in (await failure(calls)).details
            lost = await failure(calls)
            assert (lost.status, lost.details) == (grpc.StatusCode.UNAVAILABLE, "100% lost")

    run(scene)


def test_a_member_that_goes_away_says_what_it_has_not_begun() -> None:
    async def leaving(peer: Peer) -> None:
        await peer.greet()
        first, _, _ = await peer.request()
        await peer.request()
        peer.writer.write(frame(frames.GOAWAY, 0, 0, first.to_bytes(4) + bytes(4)))
        peer.writer.write(peer.answer(first, b"begun"))
        await peer.next(frames.PING)

    async def coming(peer: Peer) -> None:
        await peer.greet()
        stream, _, _ = await peer.request()
        peer.writer.write(peer.answer(stream, b"new connection"))
        await peer.next(frames.PING)

    async def scene() -> None:
        async with served(leaving, coming) as calls:
            begun, not_begun = await asyncio.gather(ask(calls), ask(calls), return_exceptions=True)
            assert begun == b"begun"
            assert isinstance(not_begun, CallFailed)
            assert verdict_of(not_begun) is Verdict.NOT_APPLIED
            assert await ask(calls) == b"new connection"

    run(scene)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (lambda s: frame(frames.RST_STREAM, 0, s, (7).to_bytes(4)), Verdict.NOT_APPLIED),
        (lambda s: frame(frames.RST_STREAM, 0, s, (2).to_bytes(4)), Verdict.LOST),
        (lambda s: frame(frames.DATA, frames.END_STREAM, s, b""), Verdict.LOST),
        (lambda s: frame(frames.PUSH_PROMISE, 0, s, bytes(8)), Verdict.LOST),
        (lambda s: frame(frames.CONTINUATION, 4, s, b"\x88"), Verdict.LOST),
        (
            lambda s: frame(frames.HEADERS, 0, s, b"\x88") + frame(frames.PING, 0, 0, bytes(8)),
            Verdict.LOST,
        ),
        (lambda s: frame(frames.HEADERS, 0xD, s, b"\xff\xff\xff\xff\xff"), Verdict.LOST),
        (lambda s: frame(frames.HEADERS, 0xD, s, b"\x09\x88"), Verdict.LOST),
        (lambda s: frame(frames.DATA, 0, s, bytes(16_385)), Verdict.LOST),
        (lambda s: frame(frames.SETTINGS, 0, 0, b"12345"), Verdict.LOST),
        (lambda s: frames.settings({frames.MAX_FRAME_SIZE: 1}), Verdict.LOST),
        (lambda s: frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 31}), Verdict.LOST),
        (lambda s: frames.window_update(0, (1 << 31) - 1), Verdict.LOST),
        (lambda s: frame(frames.GOAWAY, 0, 0, b"12"), Verdict.LOST),
        (lambda s: b"HTTP/1.1 400 Bad Request\r\n\r\n", Verdict.LOST),
        (None, Verdict.LOST),  # it hangs up
    ],
)
def test_what_breaks_a_call_leaves_it_unknown_unless_it_surely_had_no_effect(
    said: Callable[[int], bytes] | None, verdict: Verdict
) -> None:
    async def bad(peer: Peer) -> None:
        await peer.greet()
        stream, _, _ = await peer.request()
        if said is not None:
            peer.writer.write(said(stream))
            await peer.next(frames.PING)

    async def good(peer: Peer) -> None:
        await peer.greet()
        stream, _, _ = await peer.request()
        peer.writer.write(peer.answer(stream, b"again"))
        await peer.next(frames.PING)

    async def scene() -> None:
        async with served(bad, good) as calls:
            assert verdict_of(await failure(calls)) is verdict
            if said is None or said(1)[3] != frames.RST_STREAM:
                assert await ask(calls) == b"again"

    run(scene)


def test_a_silent_peer_is_left_at_the_deadline() -> None:
    async def silent(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        await peer.next(frames.PING)

    async def slow(peer: Peer) -> None:
        await peer.greet()
        first, _, _ = await peer.request()
        peer.writer.write(frame(frames.PING, 0, 0, b"8 bytes."))
        assert (await peer.next(frames.PING)) == Frame(frames.PING, frames.ACK, 0, b"8 bytes.")
        assert (await peer.next(frames.RST_STREAM)).stream == first
        peer.writer.write(peer.answer(first, b"too late"))
        stream, _, _ = await peer.request()
        peer.writer.write(peer.answer(stream, b"in time"))
        await peer.next(frames.PING)

    async def scene() -> None:
        async with served(silent, slow) as calls:
            first = await failure(calls, seconds=0.1)
            assert first.status is grpc.StatusCode.DEADLINE_EXCEEDED
            assert verdict_of(first) is Verdict.LOST
            # Somebody is there on this connection: it is kept.
            assert (await failure(calls, seconds=0.2)).status is first.status
            assert await ask(calls) == b"in time"

    run(scene)


def test_who_gives_up_resets_the_call() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({frames.INITIAL_WINDOW_SIZE: 0})
        given_up = (await peer.next(frames.HEADERS)).stream
        assert (await peer.next(frames.RST_STREAM)).stream == given_up
        peer.writer.write(frames.settings({frames.INITIAL_WINDOW_SIZE: 100}))
        stream, _, _ = await peer.request()
        peer.writer.write(peer.answer(stream, b"other"))
        await peer.next(frames.PING)

    async def scene() -> None:
        async with served(script) as calls:
            task = asyncio.create_task(ask(calls))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await ask(calls) == b"other"

    run(scene)


def test_nobody_there_means_not_applied() -> None:
    async def hangs_up(peer: Peer) -> None:
        return

    async def scene() -> None:
        async with served(hangs_up) as calls:
            assert verdict_of(await failure(calls)) is Verdict.NOT_APPLIED
        assert verdict_of(await failure(calls)) is Verdict.NOT_APPLIED

    run(scene)


FRAMES = st.lists(
    st.builds(
        Frame,
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, (1 << 31) - 1),
        st.binary(max_size=40),
    ),
    max_size=6,
)


@given(FRAMES, st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_frames_are_the_same_in_whatever_pieces(sent: list[Frame], sizes: list[int]) -> None:
    data = b"".join(frame(*one) for one in sent)
    buffer, got, at, turn = bytearray(), list[Frame](), 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        buffer += data[at : at + size]
        at, turn = at + size, turn + 1
        got += take_frames(buffer)
    assert got == sent
    assert not buffer


@given(st.integers(0, 255), st.binary(max_size=20), st.sampled_from([frames.DATA, frames.HEADERS]))
def test_padding_never_leads_outside(flags: int, payload: bytes, kind: int) -> None:
    try:
        inner = frames.content(Frame(kind, flags, 1, payload))
    except FrameError:
        assert flags & (frames.PADDED | frames.PRIORITY)
    else:
        assert inner in payload


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)


@given(st.lists(st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=4), max_size=5))
def test_header_blocks_are_read_in_order_with_the_table_they_build(
    blocks: list[dict[str, str]],
) -> None:
    encoder, reader = hpack.Encoder(), HeaderReader()
    for headers in blocks:
        for _ in range(3):  # the second and third are all of the table
            assert reader.read(encoder.encode(headers.items())) == headers


@given(st.binary(max_size=60))
def test_any_bytes_as_headers_are_read_or_refused(block: bytes) -> None:
    reader = HeaderReader()
    try:
        reader.read(block)
    except FrameError:
        return


@given(TEXTS, TEXTS, st.booleans())
def test_the_headers_of_a_request_are_read_back(path: str, token: str, tls: bool) -> None:
    block = frames.request_block(path, "host:1", tls=tls, more=(("token", token),))
    found: list[Any] = list(hpack.Decoder().decode(block))
    assert found == [
        (":method", "POST"),
        (":scheme", "https" if tls else "http"),
        (":path", path),
        (":authority", "host:1"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("token", token),
    ]
