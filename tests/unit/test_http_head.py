"""Request heads: what is served, what is refused, and with which answer."""

import httptools
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import refusals
from gateway.http.head import HeadParser, RequestHead, cannot_become_head
from gateway.http.refusals import Refusal, RefusedError


def parse(text: bytes, *, headers_max: int = 100) -> RequestHead:
    return HeadParser(headers_max).parse(text)


def refusal(text: bytes) -> Refusal:
    with pytest.raises(RefusedError) as caught:
        parse(text)
    return caught.value.refusal


def with_headers(*lines: bytes, start: bytes = b"PUT /b/k HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: h", *lines, b"", b""])


def test_a_plain_head_keeps_target_bytes_and_header_values() -> None:
    head = parse(
        b"PUT /b/a%20b+c?x=%2F&uploads HTTP/1.1\r\nHost: b.example:9000\r\n"
        b"X-Amz-Meta-A:  v\xc3\xa9  \r\nx-amz-meta-b:\r\nContent-Length: 12\r\n\r\n"
    )
    assert head.method == "PUT"
    assert head.target == b"/b/a%20b+c?x=%2F&uploads"
    assert head.headers["host"] == "b.example:9000"
    assert head.headers["x-amz-meta-a"].encode("latin-1") == b"v\xc3\xa9"
    assert head.headers["x-amz-meta-b"] == ""
    assert head.content_length == 12
    assert head.keep_alive
    assert not head.chunked
    assert not head.expects_continue


def test_repeated_headers_are_joined_in_order() -> None:
    head = parse(with_headers(b"x-amz-meta-a: 1", b"X-Amz-Meta-A: 2"))
    assert head.headers["x-amz-meta-a"] == "1,2"


@pytest.mark.parametrize(
    "line",
    [
        b"Host: a\r\n b",
        b"X: a\nY: b",
        b"X: a\rY: b",
        b"X: a\x00b",
        b"X: a\x07",
        b"X : a",
        b": a",
        b"X(: a",
        b"X",
        b" X: leading space",
    ],
)
def test_malformed_header_lines_are_bad_requests(line: bytes) -> None:
    assert refusal(with_headers(line)) is refusals.BAD_REQUEST


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"GET / HTTP/2.0", refusals.HTTP_VERSION),
        (b"GET / HTTP/0.9", refusals.HTTP_VERSION),
        (b"GET / ICE/1.0", refusals.BAD_REQUEST),
        (b"GET / HTTP/1.1 ", refusals.BAD_REQUEST),
        (b"GET  / HTTP/1.1", refusals.BAD_REQUEST),
        (b"GET /a b HTTP/1.1", refusals.BAD_REQUEST),
        (b"GET /\xff HTTP/1.1", refusals.BAD_REQUEST),
        (b"get / HTTP/1.1", refusals.BAD_REQUEST),
        (b"NONSENSE / HTTP/1.1", refusals.BAD_REQUEST),
        (b"GET /", refusals.BAD_REQUEST),
        (b"OPTIONS * HTTP/1.1", refusals.BAD_TARGET),
        (b"CONNECT h:443 HTTP/1.1", refusals.BAD_TARGET),
        (b"GET ftp://h/ HTTP/1.1", refusals.BAD_TARGET),
        (b"GET http:///k HTTP/1.1", refusals.BAD_TARGET),
        (b"GET /k#part HTTP/1.1", refusals.BAD_TARGET),
        (b"GET http://u@h/k HTTP/1.1", refusals.BAD_HOST),
    ],
)
def test_request_lines_that_are_refused(start: bytes, expected: Refusal) -> None:
    assert refusal(with_headers(start=start)) is expected


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://b.example:80/k?x", b"/k?x", "b.example:80"),
        (b"HTTPS://b.example", b"/", "b.example"),
        (b"http://b.example?x=/", b"/?x=/", "b.example"),
    ],
)
def test_absolute_targets_are_reduced_and_their_authority_wins(
    target: bytes, path: bytes, host: str
) -> None:
    head = parse(b"GET " + target + b" HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (head.target, head.headers["host"]) == (path, host)


def test_host_is_required_once_and_checked() -> None:
    assert refusal(b"GET / HTTP/1.1\r\n\r\n") is refusals.BAD_HOST
    assert refusal(with_headers(b"Host: again")) is refusals.BAD_HOST
    assert refusal(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n") is refusals.BAD_HOST
    assert refusal(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n") is refusals.BAD_HOST
    assert parse(b"GET / HTTP/1.1\r\nHost: [::1]:9000\r\n\r\n").headers["host"] == "[::1]:9000"
    assert not parse(b"GET / HTTP/1.0\r\n\r\n").keep_alive


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"Content-Length: 5", b"Content-Length: 5"], refusals.BAD_REQUEST),
        ([b"Content-Length: 5, 5"], refusals.BAD_REQUEST),
        ([b"Content-Length: -1"], refusals.BAD_REQUEST),
        ([b"Content-Length: +1"], refusals.BAD_REQUEST),
        ([b"Content-Length:"], refusals.BAD_REQUEST),
        ([b"Content-Length: 0x10"], refusals.BAD_REQUEST),
        ([b"Content-Length: 9223372036854775808"], refusals.BAD_CONTENT_LENGTH),
        ([b"Content-Length: 00000000000000000000000001"], refusals.BAD_CONTENT_LENGTH),
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], refusals.BAD_REQUEST),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], refusals.BAD_REQUEST),
        ([b"Transfer-Encoding: gzip"], refusals.TRANSFER_ENCODING),
        ([b"Transfer-Encoding: gzip, chunked"], refusals.TRANSFER_ENCODING),
        ([b"Transfer-Encoding: identity"], refusals.TRANSFER_ENCODING),
    ],
)
def test_framings_that_are_refused(lines: list[bytes], expected: Refusal) -> None:
    assert refusal(with_headers(*lines)) is expected


def test_chunked_is_refused_before_http_1_1() -> None:
    text = with_headers(b"Transfer-Encoding: chunked", start=b"PUT / HTTP/1.0")
    assert refusal(text) is refusals.BAD_REQUEST


def test_only_100_continue_with_a_framed_body_is_an_expectation() -> None:
    def expects(*lines: bytes, start: bytes = b"PUT / HTTP/1.1") -> bool:
        return parse(with_headers(*lines, start=start)).expects_continue

    assert expects(b"Expect: 100-Continue", b"Content-Length: 5")
    assert expects(b"Expect: 100-continue", b"Transfer-Encoding: chunked")
    assert expects(b"Expect: 100-continue", b"Content-Length: 0")
    assert not expects(b"Expect: 100-continue")
    assert not expects(b"Expect: 200", b"Content-Length: 5")
    assert not expects(b"Expect: 100-continue", b"Content-Length: 5", start=b"PUT / HTTP/1.0")


def test_close_is_one_of_the_connection_options() -> None:
    assert not parse(with_headers(b"Connection: TE, Close")).keep_alive
    assert parse(with_headers(b"Connection: keep-alive")).keep_alive


def test_an_upgrade_is_ignored() -> None:
    head = parse(with_headers(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 3"))
    assert head.content_length == 3


def test_too_many_headers_are_refused() -> None:
    lines = [b"x-%d: v" % number for number in range(9)]
    assert len(parse(with_headers(*lines), headers_max=10).headers) == 10
    with pytest.raises(RefusedError) as caught:
        parse(with_headers(*lines), headers_max=9)
    assert caught.value.refusal is refusals.HEAD_TOO_LARGE


def test_hopeless_beginnings_are_recognised() -> None:
    assert cannot_become_head(b"\x16\x03\x01")
    assert cannot_become_head(b"GET / HTTP/1.1\nHost: h\n\n")
    assert not cannot_become_head(b"GET / HT")


@given(st.binary(max_size=300))
def test_random_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        head = parse(data + b"\r\n\r\n")
    except RefusedError:
        return
    assert head.target.startswith(b"/")


_PIECES = st.sampled_from(
    (
        b"GET |PUT |/|http://h/| HTTP/1.1| HTTP/1.0|\r\n|\n|\r| |Host: h|Content-Length: |5|a|:|,|"
        b"Transfer-Encoding: |chunked|\t|\x00|\xff|Expect: 100-continue|Connection: close"
    ).split(b"|")
)


@given(st.lists(_PIECES, max_size=30))
def test_likely_bytes_are_parsed_or_refused_and_never_with_two_framings(
    pieces: list[bytes],
) -> None:
    try:
        head = parse(b"".join(pieces) + b"\r\n\r\n")
    except RefusedError:
        return
    assert head.target.startswith(b"/")
    assert not (head.chunked and head.content_length is not None)
    assert not ("transfer-encoding" in head.headers and "content-length" in head.headers)


class _Witness:
    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


_VALUES = st.text("ab:, \t;=\xe9\xff", max_size=12).map(lambda text: text.encode("latin-1"))


@given(st.lists(st.tuples(st.sampled_from([b"a", b"X-b", b"x-B", b"c!~"]), _VALUES), max_size=8))
def test_headers_are_what_httptools_finds(pairs: list[tuple[bytes, bytes]]) -> None:
    text = with_headers(*(name + b":" + value for name, value in pairs))
    witness = _Witness()
    httptools.HttpRequestParser(witness).feed_data(text)
    expected: dict[str, list[str]] = {}
    for name, value in witness.headers:
        expected.setdefault(name.decode().lower(), []).append(value.decode("latin-1").strip(" \t"))
    assert parse(text).headers == {name: ",".join(found) for name, found in expected.items()}


@pytest.mark.parametrize(
    "line",
    ["Connection: close", "connection: Close", "Connection: keep-alive, close", "Upgrade: h2c"],
)
def test_a_client_that_hangs_up_does_not_spoil_the_next_ones_head(line: str) -> None:
    """Heads of all connections go through one parser."""
    parser = HeadParser(100)
    plain = b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"
    for version in ("1.1", "1.0"):
        parser.parse(f"GET /a HTTP/{version}\r\nHost: x\r\n{line}\r\n\r\n".encode())
        assert parser.parse(plain).headers == {"host": "x"}
        assert parser.parse(plain).headers == {"host": "x"}


_LINES = st.sampled_from(
    [
        *(b"Connection: close", b"Connection: keep-alive", b"connection: Keep-Alive, Close"),
        *(b"Connection: upgrade", b"Proxy-Connection: close", b"Upgrade: websocket"),
        *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: x"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Expect: 100-continue"),
        *(b"a: b", b"a b: c", b" folded", b"a: \x00"),
    ]
)
_STARTS = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"HEAD / HTTP/1.1", b"PUT /b/k HTTP/1.1", b"POST / HTTP/1.1"),
        *(b"GET / HTTP/1.0", b"CONNECT /h HTTP/1.1", b"PRI * HTTP/2.0", b"nonsense"),
    ]
)


@given(
    st.lists(
        st.builds(
            lambda s, lines: with_headers(*lines, start=s), _STARTS, st.lists(_LINES, max_size=3)
        ),
        max_size=6,
    )
)
def test_what_came_before_changes_nothing(heads: list[bytes]) -> None:
    shared = HeadParser(100)

    def outcome(parser: HeadParser, text: bytes) -> object:
        try:
            return msgspec.structs.astuple(parser.parse(text))
        except RefusedError as error:
            return error.refusal

    for text in heads:
        assert outcome(shared, text) == outcome(HeadParser(100), text)
