"""What the object store staged on drives that a write went on without."""

import errno
from pathlib import Path

import pytest

from storage_node.shard_file import ShardFile
from tests.unit.test_objects import LARGE, Fixture, one_node, run


def test_a_write_that_left_a_drive_out_leaves_nothing_staged_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full drive that is space which nobody else would ever give back."""
    real_write = ShardFile.write
    filled: list[ShardFile] = []

    def fill_one(self: ShardFile, part: memoryview, offset: int) -> None:
        if not filled:
            filled.append(self)
        if self is filled[0]:
            raise OSError(errno.ENOSPC, "as told")
        real_write(self, part, offset)

    monkeypatch.setattr(ShardFile, "write", fill_one)

    async def scenario(f: Fixture) -> None:
        stored = await f.write(bytes(LARGE))
        assert filled
        assert await f.read(stored) == bytes(LARGE)
        assert all(not node.staged for node in f.nodes.values())

    run(one_node(tmp_path), scenario)
