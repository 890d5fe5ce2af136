"""Versions of etcd that forget, and what becomes of their database before they start again."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops.clients import _warn_of_etcd
from ops.local_cluster import read_the_log_again
from placement.metastore.etcd import forgets_when_killed


@pytest.mark.parametrize(
    ("version", "forgets"),
    [("3.4.23", False), ("3.5.0", True), ("3.5.2", True), ("3.5.3", False), ("3.5.21", False), ("3.6.1", False)],
)  # fmt: skip
def test_those_before_the_mend_forget(version: str, forgets: bool) -> None:
    assert forgets_when_killed(version) is forgets


def test_a_log_that_was_cut_short_is_not_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "member" / "snap"
    folder.mkdir(parents=True)
    database = folder / "db"
    database.touch()
    snapshot = folder / "0000000000000002-00000000000186a1.snap"
    snapshot.touch()
    read_the_log_again(tmp_path)
    assert database.exists()
    snapshot.unlink()
    read_the_log_again(tmp_path)
    assert not database.exists()
    read_the_log_again(tmp_path / "new")


def test_a_keeper_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def told(version: str) -> str:
        caplog.clear()

        async def status() -> Any:
            return SimpleNamespace(version=version)

        await _warn_of_etcd(SimpleNamespace(status=status))  # type: ignore[arg-type]
        return caplog.text

    assert asyncio.run(told("3.5.21")) == ""
    assert "etcd 3.5.1 may lose acknowledged writes" in asyncio.run(told("3.5.1"))
