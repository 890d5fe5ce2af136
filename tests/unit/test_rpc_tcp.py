"""The framed protocol over TCP: who may speak, what strangers can do, priorities and silence."""

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.errors import PeerUnavailable, ProtocolError
from placement.rpc import client as client_module
from placement.rpc import server as server_module
from placement.rpc.client import RpcClient
from placement.rpc.frames import (
    AUTHENTICATES,
    FRAME_HEADER,
    HANDSHAKE_FRAME_SIZE_BYTES_MAX,
    AnswerLost,
    Kind,
    NotSent,
    encode_hello,
)
from placement.rpc.handshake import (
    ClusterKey,
    Handshake,
    Role,
    TcpEndpoint,
    format_address,
    parse_address,
)
from placement.rpc.server import Request, RpcServer
from tests.unit.certificates import certificate_for_loopback
from tests.waiting import eventually_async

T = TypeVar("T")
KEY = ClusterKey(bytes(range(32)))
OTHER_KEY = ClusterKey(bytes(32))
ECHO, NEVER = 1, 2


def run(scene: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scene)


def frame(kind: int, header: bytes, payload: bytes = b"", size: int | None = None) -> bytes:
    total = len(header) + len(payload) if size is None else size
    return FRAME_HEADER.pack(total, 0, 0, kind, 0, len(header), 0) + header + payload


@asynccontextmanager
async def listening(seen: list[Request] | None = None, tls: ssl.SSLContext | None = None):  # type: ignore[no-untyped-def]
    def echo(request: Request) -> None:
        request.reply(bytes(request.header), (request.payload,))

    def never(request: Request) -> None:
        if seen is not None:
            seen.append(request)

    server = RpcServer({ECHO: echo, NEVER: never}, name="node")
    port = await server.listen_tcp("127.0.0.1", 0, KEY, tls)
    try:
        yield server, port
    finally:
        await server.close(drain_seconds=0.05)


def test_peers_with_the_same_key_understand_each_other() -> None:
    async def scene() -> None:
        async with listening() as (server, port):
            client = await RpcClient.connect(TcpEndpoint("127.0.0.1", port, KEY), name="gateway")
            reply = await client.call(ECHO, b"head", [bytes(3_000_000)])
            assert bytes(reply.header) == b"head"
            assert len(reply.payload) == 3_000_000
            assert [c.peer_name for c in server.connections] == ["gateway"]
            await client.close()

    run(scene())


def test_a_wrong_key_is_one_clear_error_on_both_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with listening() as (server, port):
            with pytest.raises(PeerUnavailable, match="the peer has another cluster key"):
                await RpcClient.connect(
                    TcpEndpoint("127.0.0.1", port, OTHER_KEY), name="x", timeout_seconds=0.3
                )
            await eventually_async(lambda: not server.connections)

    run(scene())
    said = [record.getMessage() for record in caplog.records]
    assert sum("cannot connect" in words for words in said) == 1
    assert any("a stranger closed: the peer has another cluster key" in words for words in said)


def test_an_end_without_a_key_is_refused_by_both() -> None:
    with pytest.raises(ProtocolError, match="does not authenticate"):
        Handshake("a", Role.LISTENS, KEY).greeted(*encode_hello("b"))
    with pytest.raises(ProtocolError, match="asks for a cluster key"):
        Handshake("a").greeted(*Handshake("b", Role.LISTENS, KEY).hello)
    with pytest.raises(ProtocolError, match="does not authenticate"):
        Handshake("a", Role.LISTENS, KEY).greeted(*encode_hello("b", AUTHENTICATES, b"short"))


def test_a_proof_is_good_for_one_connection_and_one_direction() -> None:
    dialer, listener = Handshake("d", Role.DIALS, KEY), Handshake("l", Role.LISTENS, KEY)
    _, dialers_proof = dialer.greeted(*listener.hello)
    _, listeners_proof = listener.greeted(*dialer.hello)
    assert dialers_proof is not None
    assert listeners_proof is not None
    assert dialer.proved(listeners_proof).name == "l"
    assert listener.proved(dialers_proof).name == "d"
    with pytest.raises(ProtocolError, match="another cluster key"):
        dialer.proved(dialers_proof)  # reflected
    again = Handshake("l", Role.LISTENS, KEY)
    again.greeted(*dialer.hello)
    with pytest.raises(ProtocolError, match="another cluster key"):
        again.proved(dialers_proof)  # replayed
    with pytest.raises(ProtocolError, match="no hello"):
        Handshake("l", Role.LISTENS, KEY).proved(dialers_proof)


def test_keys_of_another_length_and_odd_addresses_are_refused() -> None:
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="32 bytes"):
            ClusterKey(wrong)
    assert "01" not in repr(KEY)
    assert parse_address("node-1:9100") == ("node-1", 9100)
    assert parse_address("[::1]:7") == ("::1", 7)
    assert format_address("::1", 7) == "[::1]:7"
    for odd in ("", "node", ":9100", "node:", "node:x", "node:70000", "::1:7", "node:-1"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            parse_address(odd)


def _speak(data: bytes, caplog: pytest.LogCaptureFixture) -> str:
    """What the listener says of a stranger that sends this and then waits."""

    async def scene() -> None:
        async with listening() as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            async with asyncio.timeout(5):
                while await reader.read(4096):
                    pass
            await eventually_async(lambda: not server.connections)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    run(scene())
    return caplog.messages[-1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", "does not speak this protocol"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60), "not speak this protocol"),
        (frame(Kind.HELLO, b"", size=HANDSHAKE_FRAME_SIZE_BYTES_MAX + 1), "not speak this"),
        (frame(Kind.HELLO, b"OSTRAKA"), "too short"),
        (frame(Kind.HELLO, b"OSTRAKB\x00" + bytes(12)), "does not speak this protocol"),
        (
            frame(Kind.HELLO, b"OSTRAKA\x00\x02\x00\x03\x00" + bytes(8)),
            "speaks versions 2 to 3 of this protocol, this end 1 to 1",
        ),
        (frame(Kind.CALL, b"x"), "first frame is no hello"),
        (frame(Kind.PING, b""), "first frame is no hello"),
        (frame(Kind.PROOF, bytes(32)), "first frame is no hello"),
        (frame(Kind.HELLO, *encode_hello("x", AUTHENTICATES, bytes(32))) * 2, "hello twice"),
        (
            frame(Kind.HELLO, *encode_hello("x", AUTHENTICATES, bytes(32)))
            + frame(Kind.PROOF, bytes(32)),
            "another cluster key",
        ),
    ],
)
def test_strangers_are_turned_away_with_a_reason(
    data: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert words in _speak(data, caplog)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans())
def test_no_bytes_of_a_stranger_reach_a_handler(pieces: list[bytes], greet: bool) -> None:
    async def scene() -> None:
        seen: list[Request] = []
        async with listening(seen) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if greet:
                writer.write(frame(Kind.HELLO, *encode_hello("x", AUTHENTICATES, bytes(32))))
            # The listener may close at any moment; uvloop says so with RuntimeError.
            with suppress(RuntimeError, ConnectionError):
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0)
                writer.write_eof()
            async with asyncio.timeout(5):
                with suppress(ConnectionError):
                    while await reader.read(4096):
                        pass
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            await eventually_async(lambda: not server.connections)
            assert not seen
            # The server lives on.
            client = await RpcClient.connect(TcpEndpoint("127.0.0.1", port, KEY), name="g")
            assert bytes((await client.call(ECHO, b"still here")).header) == b"still here"
            await client.close()

    run(scene())


def test_a_peer_that_never_introduces_itself_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("placement.rpc.framing.HANDSHAKE_SECONDS", 0.1)

    async def scene() -> None:
        async with listening() as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(5):
                with suppress(ConnectionError):
                    while await reader.read(4096):
                        pass
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            await eventually_async(lambda: not server.connections)

    run(scene())


def test_strangers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STRANGERS_MAX", 3)

    async def scene() -> None:
        async with listening() as (server, port):
            streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
            await eventually_async(lambda: len(server.connections) == 3)
            for _, writer in streams:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

    run(scene())


def test_background_requests_leave_room_for_clients() -> None:
    async def scene() -> None:
        seen: list[Request] = []
        async with listening(seen) as (_, port):
            client = await RpcClient.connect(TcpEndpoint("127.0.0.1", port, KEY), name="g")
            clients = [client.call(NEVER, b"c") for _ in range(server_module.BUSY_REQUESTS + 1)]
            await eventually_async(lambda: len(seen) == len(clients))
            later = [client.call(NEVER, b"b", background=True) for _ in range(40)]
            await eventually_async(lambda: sum(r.background for r in seen) == 2)
            await client.call(ECHO, b"")
            assert sum(r.background for r in seen) == server_module.BACKGROUND_BUSY_MAX
            for request in [r for r in seen if not r.background]:
                request.reply(b"")
            await asyncio.gather(*clients)
            next(r for r in seen if r.background).reply(b"")
            await eventually_async(
                lambda: sum(r.background for r in seen) == server_module.BACKGROUND_MAX + 1
            )
            # Those given up make room, and none is lost.
            while len([r for r in seen if r.background]) < 40 or any(r.open for r in seen):
                for request in [r for r in seen if r.open]:
                    request.reply(b"")
                await asyncio.sleep(0)
            await asyncio.gather(*later)
            await client.close()

    run(scene())


def test_a_background_request_that_waits_beyond_its_time_never_begins() -> None:
    async def scene() -> None:
        seen: list[Request] = []
        async with listening(seen) as (_, port):
            client = await RpcClient.connect(TcpEndpoint("127.0.0.1", port, KEY), name="g")
            first = [
                client.call(NEVER, b"", background=True)
                for _ in range(server_module.BACKGROUND_MAX)
            ]
            late = client.call(NEVER, b"late", background=True, timeout_seconds=0.05)
            with pytest.raises(AnswerLost):
                await late
            # The server counts from the arrival: an answered call shows that "late" has arrived,
            # and the time after it that its own has passed.
            await client.call(ECHO, b"")
            await asyncio.sleep(0.06)
            for request in [request for request in seen if request.open]:
                request.reply(b"")
            await asyncio.gather(*first)
            await client.call(ECHO, b"")
            assert all(bytes(request.header) != b"late" for request in seen)
            await client.close()

    run(scene())


def test_bytes_of_open_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUESTS_SIZE_BYTES_MAX", 1 << 20)

    async def scene() -> None:
        seen: list[Request] = []
        async with listening(seen) as (_, port):
            client = await RpcClient.connect(TcpEndpoint("127.0.0.1", port, KEY), name="g")
            calls = [client.call(NEVER, b"", [bytes(400_000)]) for _ in range(20)]
            await eventually_async(lambda: len(seen) >= 3)
            await asyncio.sleep(0.05)
            assert len(seen) <= 4
            answered = 0
            while answered < 20:
                await eventually_async(lambda: any(request.open for request in seen))
                for request in [r for r in seen if r.open]:
                    request.reply(b"")
                    answered += 1
            await asyncio.gather(*calls)
            await client.close()

    run(scene())


def test_a_client_that_dials_ahead_connects_when_the_peer_appears() -> None:
    async def scene() -> None:
        async with listening() as (_, port):
            pass
        client = RpcClient.dial(TcpEndpoint("127.0.0.1", port, KEY), name="g")
        with pytest.raises(NotSent):
            await client.call(ECHO, b"")
        server = RpcServer({ECHO: lambda request: request.reply(b"hi")}, name="node")
        await server.listen_tcp("127.0.0.1", port, KEY)
        await eventually_async(lambda: client.connected)
        assert bytes((await client.call(ECHO, b"")).header) == b"hi"
        await client.close()
        await server.close(drain_seconds=0.05)

    run(scene())


def test_tls_goes_under_it(tmp_path: Path) -> None:
    certificate, key = certificate_for_loopback(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    dialing = ssl.create_default_context(cafile=str(certificate))

    async def scene() -> None:
        async with listening(tls=serving) as (_, port):
            client = await RpcClient.connect(TcpEndpoint("127.0.0.1", port, KEY, dialing), name="g")
            reply = await client.call(ECHO, b"", [bytes(2_000_000)])
            assert len(reply.payload) == 2_000_000
            await client.close()
            with pytest.raises(PeerUnavailable):
                await RpcClient.connect(
                    TcpEndpoint("127.0.0.1", port, KEY), name="g", timeout_seconds=0.3
                )

    run(scene())


_SERVE = """
import asyncio, sys
from placement.rpc.handshake import ClusterKey
from placement.rpc.server import RpcServer
async def main():
    server = RpcServer({1: lambda request: request.reply(b"x")}, name="node")
    print(await server.listen_tcp("127.0.0.1", 0, ClusterKey(bytes(range(32)))), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def test_a_peer_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PING_SECONDS", 0.1)
    monkeypatch.setattr(client_module, "SILENCE_SECONDS_MAX", 0.45)
    peer = subprocess.Popen(
        [sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert peer.stdout is not None

    async def scene(port: int) -> None:
        client = await RpcClient.connect(TcpEndpoint("127.0.0.1", port, KEY), name="g")
        await asyncio.sleep(0.8)
        assert client.connected
        os.kill(peer.pid, signal.SIGSTOP)
        with pytest.raises(AnswerLost, match="silent"):
            await client.call(ECHO, b"")
        os.kill(peer.pid, signal.SIGCONT)
        await eventually_async(lambda: client.connected)
        await client.close()

    try:
        run(scene(int(peer.stdout.readline())))
    finally:
        peer.kill()
        peer.wait()
        peer.stdout.close()
