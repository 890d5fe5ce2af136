"""A stored object's bytes as the body of something new: what copies read and store again."""

from collections.abc import AsyncIterator, Sequence

from gateway.context import Context
from gateway.metadata.records import ObjectRecord
from gateway.objects.reader import BlobStream
from gateway.operations.object_encryption import read_opened
from gateway.operations.objects import pieces_within
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import Buffer, Stream


async def open_range(
    context: Context, record: ObjectRecord, offset: int, length: int, data_key: bytes | None
) -> Stream | None:
    """A range of a copy's source as a stream of plain bytes; None for an empty one. `data_key` is
    the source's, when it is encrypted."""
    if not length:
        return None
    if data_key is None:
        return await context.objects.read(await pieces_within(context, record, offset, length))
    found = await read_opened(context, record, data_key, offset, length)
    return BlobStream.of(found) if isinstance(found, bytes) else found


class StreamBody:
    """A stored range as the body of a part. `None` is an empty one."""

    def __init__(self, stream: Stream | None) -> None:
        self.size_bytes = 0 if stream is None else stream.size_bytes
        self.trailers: dict[str, str] = {}
        self._groups: AsyncIterator[Sequence[Buffer]] | None = (
            None if stream is None else stream.chunks()
        )
        self._pieces: list[memoryview] = []  # of the present group, last first

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes only at the end."""
        filled = 0
        while filled < len(buffer):
            if not self._pieces:
                group = None if self._groups is None else await anext(self._groups, None)
                if group is None:
                    break
                self._pieces = [memoryview(piece).cast("B") for piece in reversed(group)]
                continue
            piece = self._pieces.pop()
            taken = min(len(piece), len(buffer) - filled)
            buffer[filled : filled + taken] = piece[:taken]
            filled += taken
            if taken < len(piece):
                self._pieces.append(piece[taken:])
        return filled

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole of it, when nothing was read before; EntityTooLarge beyond the limit."""
        if self.size_bytes > limit_bytes:
            raise S3Error(ErrorCode.ENTITY_TOO_LARGE)
        data = bytearray(self.size_bytes)
        filled = await self.read_into(memoryview(data))
        assert filled == self.size_bytes
        return bytes(data)
