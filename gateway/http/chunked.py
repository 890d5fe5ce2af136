"""The chunked transfer coding (RFC 9112, 7.1): wire bytes in, payload out. Strict, no I/O.

Not to be mistaken for aws-chunked, which is inside the payload.
"""

from gateway.http.refusals import BAD_CHUNK, RefusedError

_LINE_BYTES_MAX = 4096
"""A size with its extensions, or one trailer field."""
_TRAILERS_BYTES_MAX = 8192
_SIZE_DIGITS_MAX = 15
_HEX = frozenset(b"0123456789abcdefABCDEF")
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class ChunkedDecoder:
    """Decodes a body fed in pieces of any size. HTTP trailers are checked and dropped."""

    def __init__(self) -> None:
        self.finished = False
        self.surplus = b""
        """What came after the body; only when `finished`."""
        self._line = b""
        self._missing_bytes = 0
        self._after_data = False
        self._in_trailers = False
        self._trailers_bytes = 0

    def decode(self, data: bytes) -> bytes:
        """The payload in these bytes, perhaps none. RefusedError when the coding is not valid."""
        already_finished = self.finished
        assert not already_finished
        payload: list[bytes] = []
        position = 0
        while position < len(data) and not self.finished:
            if self._missing_bytes:
                piece = data[position : position + self._missing_bytes]
                payload.append(piece)
                position += len(piece)
                self._missing_bytes -= len(piece)
                self._after_data = not self._missing_bytes
            else:
                position = self._take_line(data, position)
        if self.finished:
            self.surplus = data[position:]
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _take_line(self, data: bytes, position: int) -> int:
        """Collect up to a line feed, act on the line when it is whole; the new position."""
        end = data.find(b"\n", position)
        stop = len(data) if end < 0 else end + 1
        line = self._line + data[position:stop]
        if self._after_data:
            if not b"\r\n".startswith(line):
                raise RefusedError(BAD_CHUNK)
        elif len(line) > _LINE_BYTES_MAX:
            raise RefusedError(BAD_CHUNK)
        if end < 0:
            self._line = line
            return stop
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise RefusedError(BAD_CHUNK)
        if self._after_data:
            self._after_data = False
        elif self._in_trailers:
            self._trailer(line[:-2])
        else:
            self._size(line[:-2])
        return stop

    def _size(self, line: bytes) -> None:
        digits, semicolon, extension = line.partition(b";")
        if semicolon:
            digits = digits.rstrip(b" \t")
        if not 0 < len(digits) <= _SIZE_DIGITS_MAX or not _HEX.issuperset(digits):
            raise RefusedError(BAD_CHUNK)
        _refuse_controls(extension)
        self._missing_bytes = int(digits, 16)
        self._in_trailers = not self._missing_bytes

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.finished = True
            return
        self._trailers_bytes += len(line)
        name, colon, value = line.partition(b":")
        if (
            self._trailers_bytes > _TRAILERS_BYTES_MAX
            or not colon
            or not name
            or not _TOKEN.issuperset(name)
        ):
            raise RefusedError(BAD_CHUNK)
        _refuse_controls(value)


def _refuse_controls(text: bytes) -> None:
    if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in text):
        raise RefusedError(BAD_CHUNK)
