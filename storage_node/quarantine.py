"""Checking a whole shard where it lies, when a reader complains of it or the scrub comes by."""

import os

from storage_node.drive import Drive
from storage_node.index import Entry
from storage_node.port import ShardId
from storage_node.record import HEADER_SIZE_BYTES, RECORD_SIZE_BYTES_MAX, parse_record
from storage_node.record import record_size_bytes as record_size
from storage_node.shard import FOOTER_SIZE_BYTES, decode_envelope, decode_footer, is_intact


def verify_shard(drive: Drive, shard: ShardId, entry: Entry) -> bool:
    """Whether frame and fragments of a shard are as they were written (in a worker thread).

    Raises OSError, FileNotFoundError when the file is not there.
    """
    files = drive.files
    fd = files.open(drive.path_of(shard, entry), os.O_RDONLY)
    try:
        if entry.segment:
            size = record_size(entry.envelope_length, entry.length)
            assert size <= RECORD_SIZE_BYTES_MAX
            data = files.pread(fd, size, entry.offset)
            record = parse_record(data, 0, entry.segment, entry.offset)
            if record is None or not record.intact:
                return False
            if record.key != shard.blob + bytes((shard.index,)):
                return False
            body_at = entry.offset + HEADER_SIZE_BYTES + entry.envelope_length
            envelope = data[HEADER_SIZE_BYTES : HEADER_SIZE_BYTES + entry.envelope_length]
        else:
            tail_length = entry.envelope_length + FOOTER_SIZE_BYTES
            tail = files.pread(fd, tail_length, entry.length)
            footer = decode_footer(tail, entry.length + tail_length)
            if footer is None or footer.shard != shard:
                return False
            body_at, envelope = 0, footer.envelope
        try:
            described = decode_envelope(envelope)
        except ValueError:
            return False
        return is_intact(
            described, entry.length, lambda at, length: files.pread(fd, length, body_at + at)
        )
    finally:
        files.close(fd)
