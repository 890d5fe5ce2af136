"""Large shards: written beside, then committed as a file of their own.

`open` makes `tmp/<token>`; the gateway writes the shard's bytes there itself. `commit` adds envelope
and footer, flushes the file, notes it in the log, renames it to its name and flushes the directory.
The note comes before the rename, so that a process that dies in between leaves no file that nobody
knows; it needs no flush, since after a crash of the machine the files themselves are looked at.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import xxhash

from storage_node.blocks import BlockWriter
from storage_node.committer import Committer, Part, Ticket
from storage_node.drive import Drive
from storage_node.files import FileLayer
from storage_node.flush import Flusher
from storage_node.layout import TMP, file_folder, file_path
from storage_node.port import Buffer, Outcome, ShardId
from storage_node.record import FILE_FACTS, RecordKind, record_size_bytes, shard_key
from storage_node.shard import encode_footer
from storage_node.stall import StallWatch

STAGED_COUNT_MAX = 4096
CLAIM_SECONDS = 20.0
"""Waiting for an older file of the same name to be removed; a drive that takes longer has failed."""


@dataclass(slots=True)
class Staged:
    """A temporary file. `length` counts what `append` wrote; `carried`, after that, is still to be
    written."""

    drive: Drive
    shard: ShardId
    path: str
    length: int = 0
    carried: bytes = b""
    appending: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Committing:
    staged: Staged
    position: int
    envelope: bytes
    length: int
    fd: int = -1
    folder_fd: int = -1


class Stager:
    """The staged shards of a node, by token."""

    def __init__(
        self,
        files: FileLayer,
        flusher: Flusher,
        stalls: StallWatch,
        committer: Committer,
    ) -> None:
        self._files = files
        self._flusher = flusher
        self._stalls = stalls
        self._committer = committer
        self._blocks = BlockWriter(files)
        self._staged: dict[int, Staged] = {}
        self._last_token = 0
        self._opening = 0
        self._removals: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for files that are being removed."""
        while self._removals:
            await asyncio.wait(list(self._removals))

    @property
    def count(self) -> int:
        """Shards begun and not yet committed."""
        return len(self._staged)

    async def open(self, drive: Drive, shard: ShardId) -> tuple[int, str] | Outcome:
        """Make the temporary file: its token and path."""
        if drive.failed:
            return Outcome.DRIVE_FAILED
        if drive.full or len(self._staged) + self._opening >= STAGED_COUNT_MAX:
            return Outcome.DRIVE_FULL
        self._last_token = token = self._last_token + 1
        path = f"{drive.root}/{TMP}/{token:x}"
        files = self._files

        def work() -> None:
            files.close(files.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

        self._opening += 1
        try:
            await drive.apart("making a file", work, lambda _: self._remove(drive, path))
        except OSError as error:
            return drive.failed_by(error)
        finally:
            self._opening -= 1
        if _has_failed(
            drive
        ):  # meanwhile: it is closed, and empties the folder when it is opened again
            return Outcome.DRIVE_FAILED
        self._staged[token] = Staged(drive, shard, path)
        return token, path

    async def append(self, token: int, payload: Buffer) -> Outcome:
        """Add bytes at the end (for gateways that cannot reach the file)."""
        staged = self._staged.get(token)
        if staged is None:
            return Outcome.MISSING
        path, drive = staged.path, staged.drive
        async with staged.appending:
            carried, at = staged.carried, staged.length

            def work() -> bytes:
                return self._blocks.append(path, carried, payload, at)

            try:
                staged.carried = await drive.apart("writing to a file", work)
            except OSError as error:
                # What the file holds is not known: it is no shard any more.
                if self._staged.pop(token, None) is not None:
                    self._remove(drive, path)
                return drive.failed_by(error)
            staged.length = at + len(carried) + len(payload) - len(staged.carried)
        return Outcome.DONE

    def abort(self, tokens: Sequence[int]) -> None:
        """Drop staged shards; unknown tokens are ignored."""
        dropped = [self._staged.pop(t) for t in tokens if t in self._staged]
        for staged in dropped:
            self._remove(staged.drive, staged.path)

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
                drive = item.staged.drive
                for fd in (item.fd, item.folder_fd):
                    if fd >= 0:
                        drive.close_apart(fd)
            refused = [i.staged for i in items if outcomes[i.position] is not Outcome.STORED]
            await asyncio.gather(*[self._unlink(one.drive, one.path) for one in refused])
        return tuple(outcomes)

    async def _carry_out(self, items: list[_Committing], outcomes: list[Outcome]) -> None:
        """The steps in their order; each goes on with those that passed the one before."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        items = await self._each(self._finish_file, items, outcomes)
        flush = self._flusher.flush([item.fd for item in items])
        await self._stalls.ended(flush, max([item.length for item in items], default=0))
        items = _without_failed(items, flush.errors, outcomes)
        items = await self._note(items, outcomes)
        items = await self._each(self._rename, items, outcomes)
        for item in await self._flush_folders(items, outcomes):
            drive = item.staged.drive
            # Right after a flush: it answers.
            if drive.failed or not drive.prove():
                outcomes[item.position] = Outcome.DRIVE_FAILED
            else:
                drive.counters.commits += 1
                drive.counters.commit_seconds += loop.time() - began
                drive.counters.commit_bytes += item.length

    async def _flush_folders(
        self, items: list[_Committing], outcomes: list[Outcome]
    ) -> list[_Committing]:
        flush = self._flusher.flush([], [item.folder_fd for item in items])
        await self._stalls.ended(flush)
        return _without_failed(items, flush.errors, outcomes)

    @staticmethod
    async def _each(
        step: Callable[[_Committing], Awaitable[Outcome | None]],
        items: list[_Committing],
        outcomes: list[Outcome],
    ) -> list[_Committing]:
        """Take a step with all at once, each on its drive's threads; those that passed."""
        kept = []
        results = await asyncio.gather(*[step(item) for item in items])
        for item, refused in zip(items, results, strict=True):
            if refused is None:
                kept.append(item)
            else:
                outcomes[item.position] = refused
        return kept

    async def _finish_file(self, item: _Committing) -> Outcome | None:
        """Add envelope and footer; None when that is done."""
        staged, files = item.staged, self._files
        if staged.drive.failed:
            return Outcome.DRIVE_FAILED
        footer = encode_footer(staged.shard, item.envelope, item.length)
        carried = staged.carried

        def work() -> tuple[int, bool]:
            fd = files.open(staged.path, os.O_RDWR)
            try:
                if carried:
                    files.pwritev(fd, [carried], staged.length)
                whole = files.fstat(fd).st_size == item.length
                if whole:
                    files.pwritev(fd, [footer], item.length)
            except BaseException:
                files.close(fd)
                raise
            return fd, whole

        close = staged.drive.close_apart
        try:
            item.fd, whole = await staged.drive.apart(
                "finishing a file", work, lambda late: close(late[0])
            )
        except OSError as error:
            return staged.drive.failed_by(error)
        # Else the writer said less or more than it wrote: not to be trusted.
        return None if whole else Outcome.DAMAGED

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

    async def _rename(self, item: _Committing) -> Outcome | None:
        """Give it its name, and open its folder to be flushed; None when that is done."""
        staged, files = item.staged, self._files
        drive = staged.drive
        path, folder = file_path(drive.root, staged.shard), file_folder(drive.root, staged.shard)

        def work() -> int:
            files.rename(staged.path, path)
            return files.open(folder, os.O_RDONLY | os.O_DIRECTORY)

        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                await drive.claim_path(path)
        except TimeoutError:
            drive.release_path(path)
            drive.fail("removing an older file stalled")
            return Outcome.DRIVE_FAILED
        try:
            item.folder_fd = await drive.apart("renaming a file", work, drive.close_apart)
        except OSError as error:
            return drive.failed_by(error)
        finally:
            drive.release_path(path)
        return None

    def _remove(self, drive: Drive, path: str) -> None:
        """Soon: nobody waits for it."""
        task = asyncio.get_running_loop().create_task(self._unlink(drive, path))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _unlink(self, drive: Drive, path: str) -> None:
        if drive.failed:  # perhaps stuck; the folder is emptied when the drive is opened again
            return
        try:
            await drive.apart("removing a file", lambda: self._files.unlink(path))
        except FileNotFoundError:
            pass
        except OSError as error:
            if not drive.failed:
                drive.failed_by(error)


def _has_failed(drive: Drive) -> bool:
    return drive.failed


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
