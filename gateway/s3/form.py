"""Reading multipart/form-data as browser uploads send it: fields first, then one file that streams.

Source: RFC 7578, and S3 User Guide, "Browser-based uploads using POST". Nothing here knows policies.
"""

import re
from enum import Enum, auto
from typing import Final, Protocol
from urllib.parse import unquote

from gateway.s3.errors import ErrorCode, S3Error

FORM_LIMIT_BYTES: Final = 20 * 1024
"""Bound of everything but the file's content. Source: S3 API Reference, POST Object."""
BOUNDARY_LIMIT_BYTES: Final = 256
"""RFC 2046 allows 70; some clients make longer ones."""
FILE_FIELD: Final = "file"

_PIECE_BYTES: Final = 4 * 1024
_PARAMETER: Final = re.compile(
    r';[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))[ \t]*',
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r'\\(["\\])')


class SizedBody(Protocol):
    """The request's body: of known size, and an S3Error when it ends before."""

    size_bytes: int

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes only at the end."""
        ...


def malformed(reason: str) -> S3Error:
    """MalformedPOSTRequest."""
    return S3Error(ErrorCode.MALFORMED_POST_REQUEST, details={"Reason": reason})


def is_form(content_type: str) -> bool:
    """Whether that is a form at all."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def boundary_of(content_type: str) -> bytes:
    """The boundary that a form's Content-Type names. Raises MalformedPOSTRequest."""
    _, parameters = _parse_parameters(content_type)
    boundary = parameters.get("boundary", "").encode("latin-1")
    if not 0 < len(boundary) <= BOUNDARY_LIMIT_BYTES or boundary != boundary.strip():
        raise malformed("the Content-Type has no usable boundary")
    return boundary


def _parse_parameters(text: str) -> tuple[str, dict[str, str]]:
    """`value; name=word; name="quoted"`: the value, and the parameters by lower-case name."""
    value, semicolon, _ = text.partition(";")
    position = len(value)
    parameters: dict[str, str] = {}
    while semicolon and position < len(text) and text[position:].strip("; \t"):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise malformed("a header's parameters do not parse")
        position = match.end()
        name = match[1].lower()
        if name in parameters:
            raise malformed(f"a header has {name} twice")
        # Only these two escapes: browsers of old send a path with single backslashes.
        quoted, word = match[2], match[3]
        parameters[name] = word if quoted is None else _ESCAPE.sub(r"\1", quoted)
    return value.strip().lower(), parameters


class _State(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()
    HEADERS = auto()
    VALUE = auto()
    FILE = auto()
    END = auto()


class FormParser:
    """Fed with the form's bytes in any pieces; stops at the file's content, or at the form's end.

    Raises MalformedPOSTRequest, MaxPostPreDataLengthExceededError. `after_file`: a parser of what
    follows the file's content, which begins right behind its delimiter; a further file raises
    IncorrectNumberOfFilesInPostRequest.
    """

    def __init__(self, boundary: bytes, *, after_file: bool = False) -> None:
        self.fields: list[tuple[str, bytes]] = []
        """Names in lower case (S3 takes them in any case) and values, in order."""
        self.file_name: str | None = None
        """The file's name as the client gave it, "" for none; None until the file's content."""
        self._delimiter = b"\r\n--" + boundary
        self._after_file = after_file
        self._state = _State.DELIMITER if after_file else _State.PREAMBLE
        # The first delimiter has no line break of its own before it.
        self._data = bytearray(b"" if after_file else b"\r\n")
        self._form_bytes = 0
        self._name = ""

    @property
    def stopped(self) -> bool:
        """At the file's content or the form's end: feed no more."""
        return self._state in (_State.FILE, _State.END)

    @property
    def rest(self) -> bytes:
        """What was fed beyond: the first bytes of the file, or what follows the form."""
        assert self.stopped
        return bytes(self._data)

    def feed(self, data: bytes) -> None:
        """Go on with these bytes."""
        assert not self.stopped
        self._data += data
        while not self.stopped and self._advance():
            pass
        kept = 0 if self.stopped else len(self._data)
        if self._form_bytes + kept > FORM_LIMIT_BYTES:
            raise S3Error(
                ErrorCode.MAX_POST_PRE_DATA_LENGTH_EXCEEDED,
                details={"MaxPostPreDataLengthBytes": str(FORM_LIMIT_BYTES)},
            )

    def _advance(self) -> bool:
        """One step; False when it needs more bytes."""
        match self._state:
            case _State.PREAMBLE | _State.VALUE:
                return self._to_delimiter()
            case _State.DELIMITER:
                return self._past_delimiter()
            case _:
                assert self._state is _State.HEADERS
                return self._past_headers()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._data[:count])
        del self._data[:count]
        self._form_bytes += count
        return taken

    def _to_delimiter(self) -> bool:
        position = self._data.find(self._delimiter)
        if position < 0:
            return False
        value = self._take(position)
        if self._state is _State.VALUE:
            self.fields.append((self._name, value))
        self._take(len(self._delimiter))
        self._state = _State.DELIMITER
        return True

    def _past_delimiter(self) -> bool:
        if len(self._data) < 2:
            return False
        if self._data.startswith(b"--"):
            self._take(2)
            self._state = _State.END
            return True
        end = self._data.find(b"\r\n")
        padding = self._data[: len(self._data) - 1 if end < 0 else end]
        if padding.strip(b" \t"):
            raise malformed("the boundary is followed by something else")
        if end < 0:
            return False
        self._take(end)
        self._state = _State.HEADERS
        return True

    def _past_headers(self) -> bool:
        # The line break before the first header is still there, so that a part without any is seen.
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        block = self._take(end + 4)
        self._name, file_name = _parse_part_headers(block[2:end])
        if self._name != FILE_FIELD:
            self._state = _State.VALUE
            return True
        if self._after_file:
            raise S3Error(ErrorCode.INCORRECT_NUMBER_OF_FILES)
        self.file_name = file_name
        self._state = _State.FILE
        return True


def _parse_part_headers(block: bytes) -> tuple[str, str]:
    """(name in lower case, file name) of a part."""
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("a part's headers are not UTF-8") from None
    disposition: str | None = None
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon:
            raise malformed("a part has a header line without a colon")
        if name.strip().lower() == "content-disposition":
            if disposition is not None:
                raise malformed("a part has two Content-Disposition headers")
            disposition = value
    if disposition is None:
        raise malformed("a part has no Content-Disposition")
    kind, parameters = _parse_parameters(disposition)
    field = parameters.get("name", "")
    if kind != "form-data" or not field:
        raise malformed("a part's Content-Disposition names no form field")
    file_name = parameters.get("filename", "")
    extended = parameters.get("filename*")
    if extended is not None:  # RFC 7578 forbids it; some clients send names beyond ASCII so
        charset, _, encoded = extended.partition("'")
        if charset.lower() == "utf-8":
            file_name = unquote(encoded.partition("'")[2])
    return field.lower(), file_name


class FormFile:
    """The file's content: a `message.Body` whose size shows only at its end.

    `size_bytes` is what it can be at most. `bounds` are set by whoever knows the policy; reading
    raises EntityTooLarge as soon as the file passes them, EntityTooSmall at its end, and refuses
    whatever follows that is no form.
    """

    def __init__(self, body: SizedBody, boundary: bytes, held: bytes, unread_bytes: int) -> None:
        self._body = body
        self._boundary = boundary
        self._delimiter = b"\r\n--" + boundary
        self._held = held
        self._unread_bytes = unread_bytes
        self._ended = False
        self.received_bytes = 0
        self.size_bytes = max(0, len(held) + unread_bytes - len(self._delimiter) - len(b"--"))
        self.trailers: dict[str, str] = {}
        self.bounds = (0, self.size_bytes)

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes only at the file's end, 0 after it."""
        if self._ended or not buffer:
            return 0
        count = min(len(self._held), len(buffer))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        if count < len(buffer):
            count += await self._read(buffer[count:])
        # A delimiter may begin in the buffer's last bytes and end beyond.
        lookahead_bytes = len(self._delimiter) - 1
        if len(self._held) < lookahead_bytes:
            self._held += await self._read_bytes(lookahead_bytes - len(self._held))
        window = b"".join((buffer[:count], self._held[:lookahead_bytes]))
        position = window.find(self._delimiter)
        if position < 0:
            if count < len(buffer):
                raise malformed("the form has no end")
            self._account(count)
            return count
        self._account(position)
        self._ended = True
        behind = position + len(self._delimiter)
        # All of `held` follows the buffer's bytes; part of it belongs to the delimiter.
        after = bytes(buffer[behind:count]) + self._held[max(0, behind - count) :]
        await self._read_tail(after)
        self._demand_least()
        return position

    async def read_all(self, limit_bytes: int) -> bytes:
        """The rest of the file; EntityTooLarge beyond the limit."""
        data = bytearray(min(limit_bytes, self.size_bytes) + 1)
        count = await self.read_into(memoryview(data))
        if count > limit_bytes:
            raise S3Error(ErrorCode.ENTITY_TOO_LARGE)
        return bytes(memoryview(data)[:count])

    def _account(self, count: int) -> None:
        self.received_bytes += count
        if self.received_bytes > self.size_bytes:
            raise malformed("the form has no end")
        most = self.bounds[1]
        if self.received_bytes > most:
            raise S3Error(
                ErrorCode.ENTITY_TOO_LARGE,
                details={
                    "ProposedSize": str(self.received_bytes),
                    "MaxSizeAllowed": str(most),
                },
            )

    def _demand_least(self) -> None:
        least = self.bounds[0]
        if self.received_bytes < least:
            raise S3Error(
                ErrorCode.ENTITY_TOO_SMALL,
                details={
                    "ProposedSize": str(self.received_bytes),
                    "MinSizeAllowed": str(least),
                },
            )

    async def _read_tail(self, data: bytes) -> None:
        """The form's end. Fields after the file are ignored, but they must be such."""
        parser = FormParser(self._boundary, after_file=True)
        parser.feed(data)
        while not parser.stopped:
            data = await self._read_bytes(_PIECE_BYTES)
            if not data:
                raise malformed("the form has no end")
            parser.feed(data)

    async def _read(self, buffer: memoryview) -> int:
        wanted = min(len(buffer), self._unread_bytes)
        if wanted == 0:
            return 0
        count = await self._body.read_into(buffer[:wanted])
        self._unread_bytes -= count
        return count

    async def _read_bytes(self, count: int) -> bytes:
        piece = bytearray(min(count, self._unread_bytes))
        received = await self._read(memoryview(piece))
        return bytes(memoryview(piece)[:received])


async def read_form(body: SizedBody, boundary: bytes) -> tuple[FormParser, FormFile]:
    """Read the fields up to the file's content.

    Raises MalformedPOSTRequest, MaxPostPreDataLengthExceededError, and
    IncorrectNumberOfFilesInPostRequest for a form without a file.
    """
    parser = FormParser(boundary)
    unread_bytes = body.size_bytes
    while not parser.stopped:
        piece = memoryview(bytearray(min(_PIECE_BYTES, unread_bytes)))
        count = await body.read_into(piece) if piece else 0
        if count == 0:
            raise malformed("the form has no end")
        unread_bytes -= count
        parser.feed(bytes(piece[:count]))
    if parser.file_name is None:
        raise S3Error(ErrorCode.INCORRECT_NUMBER_OF_FILES)
    return parser, FormFile(body, boundary, parser.rest, unread_bytes)
