"""Early writeback is advice: it changes no byte, and never fails a write."""

import os
from pathlib import Path

from storage_node.writeback import begin_writeback


def test_the_bytes_of_the_file_stay_what_they_were(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    path = tmp_path / "shard"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(descriptor, data, 0)
        begin_writeback(descriptor, 0, len(data))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    assert path.read_bytes() == data


def test_a_descriptor_that_cannot_be_written_back_is_no_error() -> None:
    reading, writing = os.pipe()
    try:
        begin_writeback(writing, 0, 4096)
        begin_writeback(-1, 0, 4096)
    finally:
        os.close(reading)
        os.close(writing)
