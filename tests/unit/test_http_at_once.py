"""Answers that need no waiting: sent without a task, in turn with other connections, and bounded."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from gateway.http.message import HttpRequest
from gateway.http.settings import HttpSettings
from gateway.s3.message import S3Response
from tests.unit.http_doubles import Connection, FakeTransport, run, settle

GET = b"GET /b/%d HTTP/1.1\r\nHost: h\r\n\r\n"
PUT = b"PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n"
MANY = 2000


def name(request: HttpRequest) -> S3Response:
    return S3Response(200, body=request.target + b"\n")


def names(transport: FakeTransport) -> list[bytes]:
    """The targets that were answered, in order."""
    return [line for line in bytes(transport.sent).split(b"\n") if line.startswith(b"/b/")]


def deliver(connection: Connection, data: bytes) -> None:
    """One read of the transport."""
    buffer = connection.protocol.get_buffer(65536)
    buffer[: len(data)] = data
    connection.protocol.buffer_updated(len(data))


def test_an_answer_at_once_leaves_in_the_same_step_and_without_a_task() -> None:
    async def scenario() -> None:
        connection = Connection(name)
        deliver(connection, GET % 1)
        assert names(connection.transport) == [b"/b/1"]
        assert connection.statuses() == [200]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


@pytest.mark.parametrize("piece", [1 << 20, 1, 3, 50])
def test_pipelined_requests_are_answered_in_order_however_they_are_cut(piece: int) -> None:
    async def scenario() -> None:
        connection = Connection(name)
        await connection.feed(GET % 1 + PUT + b"hello world" + b"\r\n" + GET % 2, piece=piece)
        await settle()
        assert names(connection.transport) == [b"/b/1", b"/b/k", b"/b/2"]
        assert not connection.transport.closed

    run(scenario())


def test_a_row_of_requests_takes_one_turn_each() -> None:
    async def scenario() -> None:
        busy, other = Connection(name), Connection(name)
        deliver(busy, b"".join([GET % number for number in range(MANY)]))
        deliver(other, GET % 7)
        assert len(busy.log) == 1, "others come between"
        assert len(other.log) == 1
        for _ in range(MANY + 1):
            await asyncio.sleep(0)
        assert names(busy.transport) == [b"/b/%d" % number for number in range(MANY)]

    run(scenario())


def test_a_client_that_ends_after_a_row_of_requests_gets_its_answers() -> None:
    async def scenario() -> None:
        connection = Connection(name)
        deliver(connection, GET % 1 + GET % 2 + GET % 3)
        assert not connection.protocol.eof_received()
        assert names(connection.transport) == [b"/b/1", b"/b/2", b"/b/3"]
        half = Connection(name)
        deliver(half, GET % 1 + (GET % 2)[:9])
        assert not half.protocol.eof_received(), "half a request is nobody's"
        await settle()
        assert names(half.transport) == [b"/b/1"]

    run(scenario())


def test_the_next_request_waits_until_the_client_took_the_answer() -> None:
    async def scenario() -> None:
        connection = Connection(name)
        connection.transport.stuck = True
        await connection.feed(GET % 1 + GET % 2)
        assert connection.log == []
        connection.transport.unstick()
        await settle()
        assert names(connection.transport) == [b"/b/1", b"/b/2"]

    run(scenario())


@pytest.mark.parametrize("end", [FakeTransport.unstick, FakeTransport.close])
def test_an_answer_that_waits_for_its_client_counts_among_the_requests_served(
    end: Callable[[FakeTransport], None],
) -> None:
    """Its bytes are held in memory: slow clients must not gather more than admission allows."""

    async def scenario() -> None:
        connection = Connection(name, HttpSettings(requests_max=1))
        admission = connection.service.admission
        connection.transport.stuck = True
        await connection.feed(GET % 1)
        assert admission.requests == 1
        assert not admission.enter(0)
        end(connection.transport)
        await settle()
        assert admission.requests == 0

    run(scenario())


def test_a_client_that_leaves_before_it_took_the_answer_is_noted() -> None:
    async def scenario() -> None:
        connection = Connection(name)
        connection.transport.stuck = True
        await connection.feed(GET % 1 + GET % 2)
        connection.transport.close()
        await settle()
        assert [request.error_code for request in connection.log] == ["ClientDisconnected"]

    run(scenario())


def test_a_shutdown_between_two_requests_lets_the_next_be_the_last() -> None:
    async def scenario() -> None:
        connection = Connection(name)
        deliver(connection, GET % 1 + GET % 2 + GET % 3)
        connection.protocol.shutdown()
        await settle()
        assert names(connection.transport) == [b"/b/1", b"/b/2"]
        assert connection.transport.eof_written, "closed so that the answer can be read"

    run(scenario())


def test_bodies_that_nobody_read_are_swallowed() -> None:
    async def scenario() -> None:
        connection = Connection(name)
        await connection.feed(PUT)
        assert names(connection.transport) == [b"/b/k"]
        await connection.feed(b"hello world" + GET % 1)
        assert names(connection.transport) == [b"/b/k", b"/b/1"]

    run(scenario())


def test_an_exception_or_unsafe_header_is_an_internal_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        def fail(request: HttpRequest) -> S3Response:
            raise KeyError("a bug")

        def inject(request: HttpRequest) -> S3Response:
            return S3Response(200, [("x-amz-meta-a", "b\r\nEvil: 1")])

        for application in (fail, inject):
            connection = Connection(application)
            await connection.feed(GET % 1)
            assert b"500 Internal Server Error" in connection.transport.sent
            assert b"a bug" not in connection.transport.sent
            assert b"Evil" not in connection.transport.sent
            assert connection.log[0].error_code == "InternalError"
            assert connection.log[0].met_bug
            assert not connection.transport.closed
            assert connection.service.admission.requests == 0

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert "KeyError: 'a bug'" in caplog.text
