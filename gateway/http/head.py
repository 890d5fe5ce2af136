"""The head of an HTTP/1 request: bytes in, a checked value out. No I/O.

httptools checks the grammar of the header lines; the request line, the framing and the limits are
checked here.
"""

import re

import httptools
import msgspec

from gateway.http import refusals
from gateway.http.refusals import RefusedError

END_OF_HEAD = b"\r\n\r\n"

_CONTENT_LENGTH_MAX = (1 << 63) - 1
_HOST = re.compile(r"[A-Za-z0-9._~%:\[\]-]*")
_FIRST_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\r")
_HASH = ord("#")
"""As a number: to look for bytes in bytes, Python first tries whether they are one."""
_LINES_MAX = 512
_LINE_CHARACTERS_MAX = 256
_STEADY = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-type", "host", "user-agent"),
        *("x-amz-content-sha256", "x-amz-date"),
    }
)
"""Headers that clients send alike with all requests, or with many of a second."""
_HOSTS_MAX = 512


class RequestHead(msgspec.Struct, eq=False, gc=False):
    """A head that may be served. `content_length` None and not `chunked`: there is no body."""

    method: str
    target: bytes
    headers: dict[str, str]
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool


class HeadParser:
    """Parses whole heads; keeps nothing of one but common header lines and hosts, to know them again."""

    def __init__(self, headers_max: int) -> None:
        self._headers_max = headers_max
        self._grammar = Grammar()
        self._lines: dict[str, tuple[str, str]] = {}
        self._hosts: set[str] = set()

    def parse(self, data: bytes) -> RequestHead:
        """The head in `data`, which ends with the blank line. RefusedError when it is not valid."""
        line = data[: data.index(b"\r\n")]
        parts = line.split(b" ")
        if len(parts) != 3:
            raise RefusedError(refusals.BAD_REQUEST)
        method, target, version = parts
        modern = version == b"HTTP/1.1"
        if not modern and version != b"HTTP/1.0":
            known = version.startswith(b"HTTP/") and len(version) == 8
            raise RefusedError(refusals.HTTP_VERSION if known else refusals.BAD_REQUEST)
        headers = self._headers(data)
        if target[:1] != b"/":
            target = _origin_form(target, headers)
        elif _HASH in target:
            raise RefusedError(refusals.BAD_TARGET)
        host = headers.get("host")
        if host is not None:
            self._check_host(host)
        elif modern:
            raise RefusedError(refusals.BAD_HOST)
        content_length, chunked = _framing(headers, modern)
        keep_alive = modern
        if "connection" in headers and modern:
            tokens = headers["connection"].lower().split(",")
            keep_alive = "close" not in [token.strip() for token in tokens]
        return RequestHead(
            method=method.decode("latin-1"),
            target=target,
            headers=headers,
            content_length=content_length,
            chunked=chunked,
            keep_alive=keep_alive,
            # RFC 9110, 10.1.1: other expectations may be ignored, and S3 ignores them.
            expects_continue=modern
            and (chunked or content_length is not None)
            and headers.get("expect", "").lower() == "100-continue",
        )

    def _headers(self, data: bytes) -> dict[str, str]:
        """The header lines: httptools vouches for their grammar, then they are simply cut."""
        self._grammar.check(data)
        lines = data.decode("latin-1").split("\r\n")
        if len(lines) - 3 > self._headers_max:
            raise RefusedError(refusals.HEAD_TOO_LARGE)
        known = self._lines
        pairs = [known.get(line) or self._cut(line) for line in lines[1:-2]]
        headers = dict(pairs)
        return headers if len(headers) == len(pairs) else _joined(pairs)

    def _cut(self, line: str) -> tuple[str, str]:
        """The name in lower case, and the value."""
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name in _STEADY and len(line) <= _LINE_CHARACTERS_MAX:
            if len(self._lines) >= _LINES_MAX:
                self._lines.clear()
            self._lines[line] = name, value
        return name, value

    def _check_host(self, host: str) -> None:
        if host in self._hosts:
            return
        if not _HOST.fullmatch(host):
            raise RefusedError(refusals.BAD_HOST)
        if len(self._hosts) < _HOSTS_MAX:
            self._hosts.add(host)


class Grammar:
    """Checks heads by a parser of httptools, the same one for as long as it ends where it began:
    after a request without a body, on a connection that goes on."""

    __slots__ = ("_goes_on", "_head_ended", "_message_ended", "_parser")

    def __init__(self) -> None:
        self._head_ended = False
        self._message_ended = False
        self._goes_on = False
        self._parser = httptools.HttpRequestParser(self)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._head_ended = True

    def on_message_complete(self) -> None:
        """Called by the parser, after a head too when no body follows. What the client wants of the
        connection is known here only: the parser forgets it after the call."""
        self._message_ended = True
        self._goes_on = self._parser.should_keep_alive()

    def check(self, data: bytes) -> None:
        """RefusedError unless the head is what RFC 9112 allows, without folded lines or bare CR, LF."""
        self._head_ended = self._message_ended = self._goes_on = False
        reusable = False
        try:
            self._parser.feed_data(data)
            reusable = self._message_ended and self._goes_on
        except httptools.HttpParserUpgrade:
            pass  # Upgrades are not offered; the request is served as if it had not asked.
        except httptools.HttpParserError:
            # Past the blank line it objects to codings that `_framing` has an answer for.
            if not self._head_ended:
                raise RefusedError(refusals.BAD_REQUEST) from None
        finally:
            if not reusable:
                self._parser = httptools.HttpRequestParser(self)
        if not self._head_ended:
            raise RefusedError(refusals.BAD_REQUEST)


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Headers of which some are given more than once."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        if name not in headers:
            headers[name] = value
        elif name == "host":
            raise RefusedError(refusals.BAD_HOST)
        else:
            headers[name] += "," + value
    return headers


def cannot_become_head(data: bytes) -> bool:
    """Whether an unfinished head is already hopeless: another protocol, or bare line feeds."""
    return data[0] not in _FIRST_BYTES or b"\n\n" in data


def _origin_form(target: bytes, headers: dict[str, str]) -> bytes:
    """The path of an absolute-form target, whose authority replaces Host (RFC 9112, 3.2.2)."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https") or b"#" in rest:
        raise RefusedError(refusals.BAD_TARGET)
    end = len(rest)
    for delimiter in (b"/", b"?"):
        found = rest.find(delimiter)
        if 0 <= found < end:
            end = found
    authority, path = rest[:end], rest[end:]
    if not authority:
        raise RefusedError(refusals.BAD_TARGET)
    headers["host"] = authority.decode("latin-1")
    return path if path[:1] == b"/" else b"/" + path


def _framing(headers: dict[str, str], modern: bool) -> tuple[int | None, bool]:
    """Content-Length, and whether the body is chunked: one of them at most (RFC 9112, 6.3)."""
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise RefusedError(refusals.TWO_FRAMINGS)
        if not modern:
            raise RefusedError(refusals.BAD_REQUEST)
        if coding.lower() != "chunked":
            raise RefusedError(refusals.TRANSFER_ENCODING)
        return None, True
    if length is None:
        return None, False
    if not (length.isascii() and length.isdigit()) or int(length[:20]) > _CONTENT_LENGTH_MAX:
        raise RefusedError(refusals.BAD_CONTENT_LENGTH)
    if len(length) > 20:
        raise RefusedError(refusals.BAD_CONTENT_LENGTH)
    return int(length), False
