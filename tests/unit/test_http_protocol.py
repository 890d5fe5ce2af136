"""One connection on a transport made of lists: framing, order, bounds, deadlines, random input."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.message import BodyTooLargeError, HttpRequest
from gateway.http.protocol import HttpProtocol
from gateway.http.settings import HttpSettings
from gateway.s3.errors import ClientDisconnected
from gateway.s3.message import Buffer, S3Response
from tests.unit.http_doubles import (
    Application,
    Connection,
    FakeTransport,
    echo,
    ignore,
    run,
    settle,
    whole,
)

PUT = b"PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKED = (
    b"PUT /b/c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
)
GET = b"GET /b/g HTTP/1.1\r\nHost: h\r\n\r\n"


def bodies(sent: bytes) -> list[bytes]:
    """The bodies of the responses, by their Content-Length."""
    found = []
    while sent:
        head, _, rest = sent.partition(b"\r\n\r\n")
        start = head.index(b"Content-Length: ") + 16
        length = int(head[start:].split(b"\r\n")[0])
        found.append(bytes(rest[:length]))
        sent = rest[length:]
    return found


@pytest.mark.parametrize("piece", [1 << 20, 1, 2, 3, 50])
def test_pipelined_requests_are_answered_in_order_however_they_are_cut(piece: int) -> None:
    async def scenario() -> None:
        connection = Connection(echo)
        await connection.feed(b"\r\n" + PUT + CHUNKED + GET + PUT, piece=piece)
        assert bodies(bytes(connection.transport.sent)) == [
            b"PUT/b/k hello world",
            b"PUT/b/c hello world",
            b"GET/b/g ",
            b"PUT/b/k hello world",
        ]
        assert not connection.transport.closed
        assert [request.bytes_in for request in connection.log] == [11, 11, 0, 11]

    run(scenario())


@given(st.lists(st.integers(1, 120), min_size=1, max_size=12))
@settings(deadline=None)
def test_any_cuts_give_the_same_answers(sizes: list[int]) -> None:
    async def scenario() -> None:
        connection = Connection(echo)
        data = PUT + CHUNKED + GET
        start = 0
        for size in [*sizes, len(data)]:
            await connection.feed(data[start : start + size])
            start += size
        assert [body[-11:] for body in bodies(bytes(connection.transport.sent))] == [
            b"hello world",
            b"hello world",
            b"GET/b/g ",
        ]

    run(scenario())


_LIKELY = st.sampled_from(
    [
        *(PUT, CHUNKED, GET, PUT[:40], CHUNKED[:-3], CHUNKED[:70]),
        *(b"\r\n", b"\n", b"\x00", b"5", b"0", b"GET / HTTP/1.1\r\n"),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
    ]
)


@given(
    st.lists(st.one_of(_LIKELY, st.binary(max_size=40)), max_size=8),
    st.integers(1, 200),
    st.sampled_from([echo, whole, ignore]),
)
@settings(deadline=None, max_examples=300)
def test_random_input_neither_raises_nor_hangs(
    parts: list[bytes], piece: int, application: Application
) -> None:
    async def scenario() -> None:
        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        connection = Connection(application)
        await connection.feed(b"".join(parts), piece=piece)
        for _ in range(3):
            connection.sweep_after(1000)
            await settle()
        assert connection.transport.closed, "every state has a deadline"
        await settle()
        assert not connection.service.connections
        assert connection.service.admission.requests == 0
        assert connection.service.admission.body_bytes == 0
        assert not errors
        for request in connection.log:
            assert request.status in {0, 200, 400, 403, 501, 505}

    run(scenario())


def test_an_oversized_head_is_refused_whole_and_unfinished() -> None:
    async def scenario() -> None:
        for end in (b"\r\n\r\n", b""):
            connection = Connection(echo)
            await connection.feed(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 20000 + end)
            assert b"<Code>RequestHeaderSectionTooLarge</Code>" in connection.transport.sent
            assert connection.transport.eof_written

    run(scenario())


def test_a_body_goes_straight_into_the_readers_buffer_and_not_beyond() -> None:
    async def scenario() -> None:
        target = bytearray(b"." * 20)

        async def read(request: HttpRequest) -> S3Response:
            count = await request.body.read_into(memoryview(target)[:16])
            return S3Response(200, body=b"%d" % count)

        connection = Connection(read)
        await connection.feed(PUT[:-11])
        buffer = connection.protocol.get_buffer(65536)
        assert len(buffer) == 11, "the next request must not land in the reader's buffer"
        buffer[:] = b"hello world"
        connection.protocol.buffer_updated(11)
        await settle()
        assert bytes(target) == b"hello world" + b"." * 9
        assert bodies(bytes(connection.transport.sent)) == [b"11"]

    run(scenario())


def test_a_cancelled_read_leaves_its_buffer_alone() -> None:
    async def scenario() -> None:
        target = bytearray(11)

        async def read(request: HttpRequest) -> S3Response:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(request.body.read_into(memoryview(target)), 0.01)
            return S3Response(200, body=await request.body.read_all(100))

        connection = Connection(read)
        await connection.feed(PUT[:-11])
        await asyncio.sleep(0.03)
        await connection.feed(b"hello world")
        assert bytes(target) == bytes(11)
        assert bodies(bytes(connection.transport.sent)) == [b"hello world"]

    run(scenario())


def test_take_now_takes_only_whole_bodies() -> None:
    async def scenario() -> None:
        seen: list[bytes | None] = []

        async def take(request: HttpRequest) -> S3Response:
            seen.append(request.body.take_now())
            return S3Response(200, body=await request.body.read_all(100))

        connection = Connection(take)
        await connection.feed(PUT + CHUNKED + GET)
        await connection.feed(PUT[:-1])
        await connection.feed(PUT[-1:])
        assert seen == [b"hello world", b"hello world", b"", None]
        assert bodies(bytes(connection.transport.sent)) == [b"", b"", b"", b"hello world"]

    run(scenario())


def test_read_all_is_limited() -> None:
    async def scenario() -> None:
        async def read(request: HttpRequest) -> S3Response:
            with pytest.raises(BodyTooLargeError):
                await request.body.read_all(10)
            return S3Response(400)

        connection = Connection(read)
        await connection.feed(PUT + CHUNKED + CHUNKED)
        await connection.feed(CHUNKED, piece=9)
        assert connection.statuses() == [400, 400, 400, 400]

    run(scenario())


def test_continue_is_sent_when_the_body_is_first_read() -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def read(request: HttpRequest) -> S3Response:
            await go.wait()
            return await whole(request)

        connection = Connection(read)
        head = PUT[:-11].replace(b"Host", b"Expect: 100-continue\r\nHost")
        await connection.feed(head)
        assert not connection.transport.sent
        go.set()
        await settle()
        assert connection.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.feed(b"hello world")
        assert connection.transport.sent.endswith(b"\r\n\r\nhello world")
        assert not connection.transport.closed

    run(scenario())


def test_an_answer_without_continue_is_the_last() -> None:
    async def scenario() -> None:
        connection = Connection(ignore)
        await connection.feed(PUT[:-11].replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert b"100 Continue" not in connection.transport.sent
        assert b"Connection: close" in connection.transport.sent
        assert connection.transport.eof_written

    run(scenario())


EMPTY_PUT = (
    PUT[:-11]
    .replace(b"Content-Length: 11", b"Content-Length: 0")
    .replace(b"Host", b"Expect: 100-continue\r\nHost")
)


def test_an_expectation_without_bytes_is_met_before_a_success() -> None:
    # botocore takes a final answer in place of 100 for the status of the connection's next answer.
    async def accept(_: HttpRequest) -> S3Response:
        return S3Response(200)

    async def scenario() -> None:
        connection = Connection(accept)
        await connection.feed(EMPTY_PUT + GET)
        sent = bytes(connection.transport.sent)
        assert sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert sent.count(b"HTTP/1.1 ") == 3
        assert not connection.transport.closed

    run(scenario())


def test_an_expectation_without_bytes_that_is_refused_ends_the_connection() -> None:
    async def refuse(_: HttpRequest) -> S3Response:
        return S3Response(403)

    async def scenario() -> None:
        connection = Connection(refuse)
        await connection.feed(EMPTY_PUT)
        assert connection.transport.sent.startswith(b"HTTP/1.1 403 ")
        assert b"Connection: close" in connection.transport.sent

    run(scenario())


def test_a_small_unread_body_is_swallowed_and_a_large_one_ends_the_connection() -> None:
    async def scenario() -> None:
        connection = Connection(ignore)
        await connection.feed(PUT[:-11])
        assert b"Connection: close" not in connection.transport.sent
        await connection.feed(b"hello world" + GET)
        assert connection.statuses() == [403, 403]
        await connection.feed(PUT[:-11].replace(b"11", b"99999999"))
        assert connection.transport.sent.endswith(b"Connection: close\r\n\r\nno")
        assert connection.transport.eof_written
        await connection.feed(bytes(100_000))
        assert not connection.transport.closed, "lingering lets the client read the answer"
        connection.sweep_after(100)
        assert connection.transport.aborted

    run(scenario())


def test_unread_bytes_are_bounded() -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def wait(request: HttpRequest) -> S3Response:
            await go.wait()
            return await whole(request)

        connection = Connection(wait)
        body = bytes(range(256)) * 2000
        await connection.feed(PUT[:-11].replace(b"11", b"%d" % len(body)))
        start = 0
        while connection.transport.reading:
            await connection.feed(body[start : start + 10_000])
            start += 10_000
            assert start <= 80_000
        go.set()
        await settle()
        await connection.feed(body[start:])
        assert bodies(bytes(connection.transport.sent)) == [body]
        go.clear()
        await connection.feed(GET)
        for _ in range(100):
            await connection.feed(GET * 100)
        assert not connection.transport.reading
        go.set()

    run(scenario())


def test_the_next_request_waits_until_the_client_took_the_answer() -> None:
    async def scenario() -> None:
        connection = Connection(echo)
        connection.transport.stuck = True
        await connection.feed(GET + GET)
        assert connection.log == []
        connection.transport.unstick()
        await settle()
        assert connection.statuses() == [200, 200]

    run(scenario())


class Pieces:
    """A stream that reuses one buffer and notes how far it is asked."""

    def __init__(self, count: int, *, fail_at: int = -1, size_bytes: int | None = None) -> None:
        self.size_bytes = 4 * count if size_bytes is None else size_bytes
        self.count, self.fail_at = count, fail_at
        self.asked = 0
        self.closed = False

    async def chunks(self) -> AsyncIterator[Sequence[Buffer]]:
        try:
            for index in range(self.count):
                self.asked += 1
                if index == self.fail_at:
                    raise RuntimeError("a shard is gone")
                yield [b"%02d" % index, memoryview(b"ab")]
        finally:
            self.closed = True


def test_a_stream_is_asked_for_more_only_when_the_transport_is_empty() -> None:
    async def scenario() -> None:
        stream = Pieces(3)
        connection = Connection(answer_with(stream))
        connection.transport.stuck = True
        await connection.feed(GET)
        assert stream.asked == 1
        connection.transport.unstick()
        await settle()
        assert bodies(bytes(connection.transport.sent)) == [b"00ab01ab02ab"]
        assert connection.log[0].bytes_out == 12

    run(scenario())


def answer_with(stream: Pieces) -> Application:
    async def answer(request: HttpRequest) -> S3Response:
        return S3Response(200, body=stream)

    return answer


@pytest.mark.parametrize("stream", [Pieces(3, fail_at=1), Pieces(3, size_bytes=13)])
def test_a_stream_that_breaks_off_or_is_short_cuts_the_connection(stream: Pieces) -> None:
    async def scenario() -> None:
        connection = Connection(answer_with(stream))
        await connection.feed(GET)
        assert connection.transport.aborted
        assert stream.closed
        assert connection.log[0].error_code == "InternalError"

    run(scenario())


def test_a_stream_is_closed_when_its_client_leaves() -> None:
    async def scenario() -> None:
        stream = Pieces(3)
        connection = Connection(answer_with(stream))
        connection.transport.stuck = True
        await connection.feed(GET)
        connection.transport.abort()
        await settle()
        assert stream.closed
        assert connection.log[0].error_code == "ClientDisconnected"

    run(scenario())


def test_a_stalled_body_is_answered_with_a_timeout_and_its_reader_told() -> None:
    async def scenario() -> None:
        told: list[str] = []

        async def read(request: HttpRequest) -> S3Response:
            try:
                return await whole(request)
            except ClientDisconnected:
                told.append(request.request_id)
                raise

        connection = Connection(read)
        await connection.feed(PUT[:-5])
        connection.sweep_after(20)
        assert not told
        connection.clock.seconds += 20
        connection.protocol.sweep(connection.clock.seconds)
        await settle()
        assert b"<Code>RequestTimeout</Code>" in connection.transport.sent
        assert told == [connection.log[0].request_id]
        assert (connection.log[0].status, connection.log[0].error_code) == (400, "RequestTimeout")

    run(scenario())


def test_idle_half_sent_and_unread_connections_time_out() -> None:
    async def scenario() -> None:
        idle = Connection(echo)
        idle.sweep_after(80)
        assert idle.transport.closed
        assert not idle.transport.sent
        half = Connection(echo)
        await half.feed(GET[:20])
        half.sweep_after(30)
        assert b"<Code>RequestTimeout</Code>" in half.transport.sent

    run(scenario())


def test_an_early_end_of_the_body_is_incomplete() -> None:
    async def scenario() -> None:
        connection = Connection(whole)
        await connection.feed(PUT[:-5])
        connection.protocol.eof_received()
        await settle()
        assert b"<Code>IncompleteBody</Code>" in connection.transport.sent

    run(scenario())


def test_a_client_that_sends_no_more_still_gets_its_answer() -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def wait(request: HttpRequest) -> S3Response:
            await go.wait()
            return S3Response(200)

        connection = Connection(wait)
        await connection.feed(GET)
        assert connection.protocol.eof_received()
        go.set()
        await settle()
        assert b"200 OK" in connection.transport.sent
        assert connection.transport.closed

    run(scenario())


@pytest.mark.parametrize(
    ("last", "answers"),
    [
        (b"", 3),
        (GET[:9], 3),
        (b"\r\n", 3),
        (PUT, 4),
        (PUT[:-5], 4),
    ],
)
def test_a_client_that_sends_no_more_gets_the_answers_to_all_its_requests(
    last: bytes, answers: int
) -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def wait(request: HttpRequest) -> S3Response:
            await go.wait()
            return await whole(request)

        connection = Connection(wait)
        await connection.feed(PUT + GET + GET + last)
        assert connection.protocol.eof_received()
        go.set()
        await settle()
        sent = bytes(connection.transport.sent)
        assert sent.count(b"HTTP/1.1 ") == answers
        assert sent.count(b"<Code>IncompleteBody</Code>") == (last == PUT[:-5])
        assert len(connection.log) == answers
        assert connection.transport.closed

    run(scenario())


def test_an_exception_or_unsafe_header_of_the_application_is_an_internal_error() -> None:
    async def scenario() -> None:
        async def fail(request: HttpRequest) -> S3Response:
            raise KeyError("a bug")

        async def inject(request: HttpRequest) -> S3Response:
            return S3Response(200, [("x-amz-meta-a", "b\r\nEvil: 1")])

        for application in (fail, inject):
            connection = Connection(application)
            await connection.feed(GET)
            assert b"500 Internal Server Error" in connection.transport.sent
            assert b"a bug" not in connection.transport.sent
            assert b"Evil" not in connection.transport.sent
            assert connection.log[0].error_code == "InternalError"
            assert connection.log[0].met_bug
            assert not connection.transport.closed

    run(scenario())


def test_bytes_that_wait_when_a_connection_begins_hold_up_no_answer() -> None:
    async def scenario() -> None:
        async def answer(request: HttpRequest) -> S3Response:
            return S3Response(200, [], b"told")

        connection = Connection(answer, ends_a_handshake=True)
        await connection.feed(GET)
        connection.transport.unstick()
        await connection.feed(GET)
        assert connection.transport.sent.count(b"told") == 2

    run(scenario())


def test_beyond_admission_the_answer_is_slow_down() -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def wait(request: HttpRequest) -> S3Response:
            await go.wait()
            return S3Response(200)

        connection = Connection(wait, HttpSettings(requests_max=1))
        await connection.feed(GET)
        second = HttpProtocol(connection.service, server_state=connection.state)
        transport = FakeTransport(second)
        second.connection_made(transport)  # type: ignore[arg-type]
        second.get_buffer(100)[: len(GET)] = GET
        second.buffer_updated(len(GET))
        await settle()
        assert b"503 Service Unavailable" in transport.sent
        assert b"<Code>SlowDown</Code>" in transport.sent
        assert b"Retry-After: " in transport.sent
        assert not transport.closed
        go.set()
        await settle()
        assert connection.statuses() == [503, 200]

    run(scenario())


def test_too_many_connections_are_turned_away() -> None:
    async def scenario() -> None:
        connection = Connection(echo, HttpSettings(connections_max=1))
        second = HttpProtocol(connection.service, server_state=connection.state)
        transport = FakeTransport(second)
        second.connection_made(transport)  # type: ignore[arg-type]
        assert b"<Code>SlowDown</Code>" in transport.sent
        assert transport.eof_written

    run(scenario())


def test_shutdown_closes_idle_connections_and_lets_requests_finish() -> None:
    async def scenario() -> None:
        idle = Connection(echo)
        idle.protocol.shutdown()
        assert idle.transport.closed
        busy = Connection(whole)
        await busy.feed(PUT[:-5])
        busy.protocol.shutdown()
        assert len(busy.state.tasks) == 1
        await busy.feed(PUT[-5:])
        assert b"Connection: close\r\n\r\nhello world" in busy.transport.sent
        assert busy.transport.closed
        assert not busy.state.tasks

    run(scenario())


def test_a_failing_log_does_not_hold_up_the_connection() -> None:
    async def scenario() -> None:
        connection = Connection(echo)

        def fail(request: HttpRequest) -> None:
            raise OSError(28, "no space")

        connection.service.finished = fail
        await connection.feed(GET + GET + b"nonsense\r\n\r\n")
        assert connection.transport.sent.count(b"200 OK") == 2
        assert connection.transport.eof_written

    run(scenario())
