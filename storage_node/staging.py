"""Large shards: written beside, then committed as a file of their own.

`open` makes `tmp/<token>`; the gateway writes the shard's bytes there itself. `commit` adds envelope
and footer, flushes the file, notes it in the log, renames it to its name and flushes the directory.
The note comes before the rename, so that a process that dies in between leaves no file that nobody
knows; it needs no flush, since after a crash of the machine the files themselves are looked at.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from storage_node.committer import Committer, Part, Ticket
from storage_node.drive import Drive
from storage_node.files import FileLayer
from storage_node.flush import Flusher
from storage_node.layout import TMP, file_folder, file_path
from storage_node.offload import Offload
from storage_node.port import Buffer, Outcome, ShardId
from storage_node.record import FILE_FACTS, RecordKind, record_size_bytes, shard_key
from storage_node.shard import encode_footer
from storage_node.stall import StallWatch

log = logging.getLogger(__name__)

STAGED_COUNT_MAX = 4096
CLAIM_SECONDS = 20.0
"""Waiting for an older file of the same name to be removed; a drive that takes longer has failed."""


@dataclass(slots=True)
class Staged:
    """A temporary file. `length` counts what `append` wrote."""

    drive: Drive
    shard: ShardId
    path: str
    length: int = 0


@dataclass(slots=True)
class _Committing:
    staged: Staged
    position: int
    envelope: bytes
    length: int
    fd: int = -1


class Stager:
    """The staged shards of a node, by token."""

    def __init__(
        self,
        files: FileLayer,
        flusher: Flusher,
        stalls: StallWatch,
        committer: Committer,
        offload: Offload,
    ) -> None:
        self._files = files
        self._flusher = flusher
        self._stalls = stalls
        self._committer = committer
        self._offload = offload
        self._staged: dict[int, Staged] = {}
        self._last_token = 0

    @property
    def count(self) -> int:
        """Shards begun and not yet committed."""
        return len(self._staged)

    def open(self, drive: Drive, shard: ShardId) -> tuple[int, str] | Outcome:
        """Make the temporary file: its token and path."""
        if drive.failed:
            return Outcome.DRIVE_FAILED
        if drive.full or len(self._staged) >= STAGED_COUNT_MAX:
            return Outcome.DRIVE_FULL
        self._last_token = token = self._last_token + 1
        path = f"{drive.root}/{TMP}/{token:x}"
        try:
            fd = self._files.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            self._files.close(fd)
        except OSError as error:
            return drive.failed_by(error)
        self._staged[token] = Staged(drive, shard, path)
        return token, path

    async def append(self, token: int, payload: Buffer) -> Outcome:
        """Add bytes at the end (for gateways that cannot reach the file)."""
        staged = self._staged.get(token)
        if staged is None:
            return Outcome.MISSING
        files, path, at = self._files, staged.path, staged.length
        staged.length += len(payload)

        def work() -> None:
            fd = files.open(path, os.O_WRONLY)
            try:
                files.pwritev(fd, [payload], at)
            finally:
                files.close(fd)

        try:
            await self._offload(work)
        except OSError as error:
            return staged.drive.failed_by(error)
        return Outcome.DONE

    def abort(self, tokens: Sequence[int]) -> None:
        """Drop staged shards; unknown tokens are ignored."""
        dropped = [self._staged.pop(t) for t in tokens if t in self._staged]
        for staged in dropped:
            self._remove(staged)

    def drop_drive(self, drive: Drive) -> None:
        """A drive is gone: so are its staged shards."""
        for token in [t for t, s in self._staged.items() if s.drive is drive]:
            del self._staged[token]

    async def commit(self, requests: Sequence[tuple[int, bytes, int]]) -> tuple[Outcome, ...]:
        """(token, envelope, length) of each: durable when STORED. Raises NodeBusy."""
        outcomes = [Outcome.MISSING] * len(requests)
        items = []
        for position, (token, envelope, length) in enumerate(requests):
            staged = self._staged.pop(token, None)
            if staged is not None:
                items.append(_Committing(staged, position, envelope, length))
        try:
            await self._carry_out(items, outcomes)
        finally:
            for item in items:
                if item.fd >= 0:
                    self._files.close(item.fd)
                if outcomes[item.position] is not Outcome.STORED:
                    self._remove(item.staged)
        return tuple(outcomes)

    async def _carry_out(self, items: list[_Committing], outcomes: list[Outcome]) -> None:
        """The steps in their order; each goes on with those that passed the one before."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        items = [item for item in items if self._finish_file(item, outcomes)]
        flush = self._flusher.flush([item.fd for item in items])
        await self._stalls.ended(flush, max([item.length for item in items], default=0))
        items = _without_failed(items, flush.errors, outcomes)
        items = await self._note(items, outcomes)
        renamed = [item for item in items if await self._rename(item, outcomes)]
        await self._flush_folders(renamed, outcomes)
        for item in renamed:
            drive = item.staged.drive
            if outcomes[item.position] is Outcome.STORED:
                if drive.failed or not drive.prove():
                    outcomes[item.position] = Outcome.DRIVE_FAILED
                else:
                    drive.counters.commits += 1
                    drive.counters.commit_seconds += loop.time() - began
                    drive.counters.commit_bytes += item.length

    def _finish_file(self, item: _Committing, outcomes: list[Outcome]) -> bool:
        staged, files = item.staged, self._files
        if staged.drive.failed:
            outcomes[item.position] = Outcome.DRIVE_FAILED
            return False
        try:
            item.fd = files.open(staged.path, os.O_RDWR)
            if files.fstat(item.fd).st_size != item.length:
                # The writer said less or more than it wrote: not to be trusted.
                outcomes[item.position] = Outcome.DAMAGED
                return False
            footer = encode_footer(staged.shard, item.envelope, item.length)
            files.pwritev(item.fd, [footer], item.length)
        except OSError as error:
            outcomes[item.position] = staged.drive.failed_by(error)
            return False
        return True

    async def _note(self, items: list[_Committing], outcomes: list[Outcome]) -> list[_Committing]:
        """Append a FILE record for each to its drive's log."""
        if not items:
            return []
        done: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        ticket = Ticket(len(items), lambda o: None if done.done() else done.set_result(o))
        parts = []
        for number, item in enumerate(items):
            shard = item.staged.shard
            facts = FILE_FACTS.pack(item.length, len(item.envelope))
            key = shard_key(shard.blob, shard.index)
            part = Part(
                item.staged.drive,
                RecordKind.FILE,
                key,
                ticket,
                number,
                record_size_bytes(0, len(facts)),
                payload=facts,
                checksum=xxhash.xxh3_64_intdigest(facts),
            )
            parts.append(part)
        self._committer.submit(parts)
        noted = await done
        for item, outcome in zip(items, noted, strict=True):
            outcomes[item.position] = outcome
        return [item for item in items if outcomes[item.position] is Outcome.STORED]

    async def _rename(self, item: _Committing, outcomes: list[Outcome]) -> bool:
        staged = item.staged
        path = file_path(staged.drive.root, staged.shard)
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                await staged.drive.claim_path(path)
            self._files.rename(staged.path, path)
        except TimeoutError:
            staged.drive.fail("removing an older file stalled")
            outcomes[item.position] = Outcome.DRIVE_FAILED
            return False
        except OSError as error:
            outcomes[item.position] = staged.drive.failed_by(error)
            return False
        return True

    async def _flush_folders(self, items: list[_Committing], outcomes: list[Outcome]) -> None:
        fds: dict[str, int] = {}
        try:
            kept = []
            for item in items:
                folder = file_folder(item.staged.drive.root, item.staged.shard)
                try:
                    if folder not in fds:
                        fds[folder] = self._files.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                    kept.append((item, folder))
                except OSError as error:
                    outcomes[item.position] = item.staged.drive.failed_by(error)
            flush = self._flusher.flush([], list(fds.values()))
            await self._stalls.ended(flush)
            errors = dict(zip(fds, flush.errors, strict=True))
            _without_failed([i for i, _ in kept], [errors[f] for _, f in kept], outcomes)
        finally:
            for fd in fds.values():
                self._files.close(fd)

    def _remove(self, staged: Staged) -> None:
        try:
            self._files.unlink(staged.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            staged.drive.failed_by(error)


def _without_failed(
    items: list[_Committing], errors: Sequence[OSError | None], outcomes: list[Outcome]
) -> list[_Committing]:
    """Drop the drives whose flush failed, and their items."""
    kept = []
    for item, error in zip(items, errors, strict=True):
        if error is None:
            kept.append(item)
        else:
            item.staged.drive.fail(f"a flush failed: {error}")
            outcomes[item.position] = Outcome.DRIVE_FAILED
    return kept
