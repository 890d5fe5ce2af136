"""Rules of a single drive, each taken out."""

# What is taken out is a name inside a module: mypy cannot know that on purpose.
# mypy: disable-error-code="attr-defined,assignment,misc,method-assign,arg-type"

import dataclasses
from collections.abc import Iterator
from typing import Any

import storage_node.care
import storage_node.committer
import storage_node.recovery
from storage_node.committer import Committer
from storage_node.drive import Drive
from storage_node.record import ALIGNMENT, ScannedRecord
from tests.sim.broken.registry import DRIVE, rule


@rule("a drive proves that it is itself before it answers", DRIVE)
def drives_are_not_proven(world: object) -> None:
    """What is written into a folder that was removed is acknowledged."""
    Drive.prove = lambda self: not self.failed


@rule("a failed flush is never retried", DRIVE)
def failed_flushes_are_retried(world: object) -> None:
    """The second flush succeeds, and has stored nothing."""
    flush_all = Committer._flush_all

    async def again(self: Committer, drives: Any) -> None:
        fail, failed = Drive.fail, []
        Drive.fail = lambda drive, reason: failed.append(drive)
        try:
            await flush_all(self, drives)
        finally:
            Drive.fail = fail
        if failed:
            await flush_all(self, failed)

    Committer._flush_all = again


@rule("recovery skips past bad records and goes on", DRIVE)
def recovery_stops_at_bad_records(world: object) -> None:
    """What comes after a damaged record is not looked for."""
    scan = storage_node.recovery.scan_segment

    def until_bad(
        files: Any, fd: int, segment: int, start: int, end: int
    ) -> Iterator[ScannedRecord]:
        expected = start + -start % ALIGNMENT
        for record in scan(files, fd, segment, start, end):
            if record.offset != expected:
                return
            yield record
            expected = record.offset + record.size_bytes

    storage_node.recovery.scan_segment = until_bad


@rule("only folders of --drives are adopted empty", DRIVE)
def empty_folders_are_adopted(world: object) -> None:
    """A given drive that comes back empty gets a new identity by itself."""
    identify = storage_node.care.DriveCare._identify

    def adopt(self: Any, place: Any) -> Any:
        place.config = dataclasses.replace(place.config, may_adopt=True)
        return identify(self, place)

    storage_node.care.DriveCare._identify = adopt
