"""Pieces that are appended in whole blocks make the file that they would make one after the other."""

import errno
import os
import random
from pathlib import Path

import pytest

from storage_node.blocks import DIRECT_SIZE_BYTES_MIN, BlockWriter
from storage_node.files import RealFiles


def append_all(writer: BlockWriter, path: Path, pieces: list[bytes]) -> tuple[int, bytes]:
    """What was written, and what is carried."""
    length, carried = 0, b""
    for piece in pieces:
        before = len(carried)
        carried = writer.append(str(path), carried, piece, length)
        length += before + len(piece) - len(carried)
    return length, carried


@pytest.mark.parametrize("seed", range(12))
def test_pieces_of_any_length_lie_one_after_the_other(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "shard"
    path.touch()
    longest = 5 * DIRECT_SIZE_BYTES_MIN
    pieces = [
        chance.randbytes(chance.choice([1, 4096, DIRECT_SIZE_BYTES_MIN, chance.randrange(longest)]))
        for _ in range(9)
    ]
    length, carried = append_all(BlockWriter(RealFiles()), path, pieces)
    assert path.read_bytes()[:length] + carried == b"".join(pieces)
    assert path.stat().st_size == length
    assert len(carried) < 4096


def test_long_pieces_pass_the_page_cache_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shard"
    path.touch()
    flags: list[int] = []
    real_open = os.open

    def note(name: str, flag: int, mode: int = 0o777) -> int:
        flags.append(flag & os.O_DIRECT)
        return real_open(name, flag, mode)

    monkeypatch.setattr(os, "open", note)
    pieces = [bytes(DIRECT_SIZE_BYTES_MIN + 8), bytes(DIRECT_SIZE_BYTES_MIN + 8), bytes(100)]
    length, carried = append_all(BlockWriter(RealFiles()), path, pieces)
    assert flags == [os.O_DIRECT, os.O_DIRECT, 0]
    assert (length, carried) == (sum(map(len, pieces)), b"")


@pytest.mark.parametrize("call", ["open", "pwritev"])
def test_filesystems_and_devices_that_refuse_are_written_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "shard"
    path.touch()
    files = RealFiles()
    real_open, real_write = RealFiles.open, RealFiles.pwritev
    direct: set[int] = set()

    def open_(self: RealFiles, name: str, flags: int) -> int:
        if call == "open" and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct I/O here")
        fd = real_open(self, name, flags)
        direct.discard(fd)
        if flags & os.O_DIRECT:
            direct.add(fd)
        return fd

    def write(self: RealFiles, fd: int, buffers: list[bytes], offset: int) -> None:
        if fd in direct:
            raise OSError(errno.EINVAL, "not aligned")
        real_write(self, fd, buffers, offset)

    monkeypatch.setattr(RealFiles, "open", open_)
    monkeypatch.setattr(RealFiles, "pwritev", write)
    pieces = [random.Random(n).randbytes(DIRECT_SIZE_BYTES_MIN + 8) for n in range(3)]
    length, carried = append_all(BlockWriter(files), path, pieces)
    assert path.read_bytes()[:length] + carried == b"".join(pieces)
