"""Drives remember which life of the metadata they have seen."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from placement.clock import SystemClock, SystemRandomness
from storage_node.files import RealFiles
from storage_node.identity import DriveRefused, read_identity
from storage_node.node import Node
from tests.contract.test_node import node_config


def _open(folder: Path, incarnation: int) -> None:
    async def main() -> None:
        config = dataclasses.replace(node_config(folder), incarnation=incarnation)
        node = await Node.open(config, RealFiles(), SystemClock(), SystemRandomness(), tended=False)
        await node.close()

    asyncio.run(main())


def test_a_drive_takes_over_a_later_life_and_refuses_an_earlier_one(tmp_path: Path) -> None:
    _open(tmp_path, 1)
    paths = [drive.path for drive in node_config(tmp_path).drives]
    before = [read_identity(RealFiles(), path) for path in paths]
    _open(tmp_path, 3)
    for path, earlier in zip(paths, before, strict=True):
        assert earlier is not None
        assert read_identity(RealFiles(), path) == dataclasses.replace(earlier, incarnation=3)
    _open(tmp_path, 3)
    with pytest.raises(DriveRefused, match="later incarnation"):
        _open(tmp_path, 2)
