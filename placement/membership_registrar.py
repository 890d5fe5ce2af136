"""A node's side of membership: keeps its records and those of its drives alive under one lease."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from placement.clock import Clock
from placement.errors import LeaseNotFound, MetastoreUnavailable
from placement.ids import DriveId
from placement.membership import (
    DriveRecord,
    MembershipRefused,
    NodeRecord,
    decode,
    drive_key,
    encode,
    node_key,
)
from placement.metastore.port import DeleteRange, KeyValue, Metastore, Put, Txn, unchanged

LEASE_SECONDS = 10
_log = logging.getLogger("ostraka.membership")


class Registrar:
    """Registers one node. `failed` is set when another process took the node's name."""

    def __init__(
        self,
        metastore: Metastore,
        node: NodeRecord,
        clock: Clock,
        *,
        lease_seconds: int = LEASE_SECONDS,
    ) -> None:
        self._metastore = metastore
        self._node = node
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._lease = 0
        self._node_written = False
        self._wanted: dict[DriveId, DriveRecord] = {}
        self._written: dict[DriveId, DriveRecord | None] = {}
        """What stands there; None: an answer was lost, nobody knows."""
        self._refused: set[DriveId] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def refused(self) -> frozenset[DriveId]:
        """Drives that another live node serves too: a copied identity. They are not registered."""
        return frozenset(self._refused)

    async def start(self, drives: Sequence[DriveRecord]) -> None:
        """Register and go on doing so. Raises MembershipRefused, MetastoreUnavailable."""
        self.update(drives)
        await self._round()
        self._task = asyncio.create_task(self._run(), name="membership")

    def update(self, drives: Sequence[DriveRecord]) -> None:
        """What the drives are like now."""
        wanted = {DriveId(record.drive): record for record in drives}
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    async def close(self) -> None:
        """Leave: the records go at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._lease:
            with contextlib.suppress(MetastoreUnavailable, LeaseNotFound):
                await self._metastore.lease_revoke(self._lease)
        self.failed.cancel()

    async def _run(self) -> None:
        troubled = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease_seconds / 3):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self._round()
                if troubled:
                    troubled = False
                    _log.warning("the registration is renewed again")
            except MetastoreUnavailable as error:
                if not troubled:  # once, however long it lasts
                    _log.warning("the registration cannot be renewed (trying on): %s", error)
                troubled = True
                await self._clock.sleep(0.5)
                self._changed.set()
            except MembershipRefused as error:
                self.failed.set_exception(error)
                return

    async def _round(self) -> None:
        """Renew the lease, or take a new one, and write what is not written."""
        if self._lease:
            try:
                await self._metastore.lease_keep_alive(self._lease)
            except LeaseNotFound:
                _log.warning("the node's lease has ended: registering again")
                self._lease = 0
        if not self._lease:
            self._lease = await self._metastore.lease_grant(self._lease_seconds)
            self._node_written = False
            self._written = {}
        try:
            await self._write_node()
            for drive, record in self._wanted.items():
                if self._written.get(drive) != record:
                    await self._write_drive(drive, record)
            for drive in [drive for drive in self._written if drive not in self._wanted]:
                await self._forget_drive(drive)
        except LeaseNotFound:
            self._lease = 0
            self._changed.set()

    async def _write_node(self) -> None:
        key = node_key(self._node.name)
        (found,) = await self._metastore.get_many([key])
        if self._node_written:
            if found is not None and decode(NodeRecord, found.value).run == self._node.run:
                return
            if found is not None:
                raise MembershipRefused(f"another process has registered as node {self._node.name}")
        await self._put(key, encode(self._node), found)
        self._node_written = True

    async def _write_drive(self, drive: DriveId, record: DriveRecord) -> None:
        key = drive_key(drive)
        (found,) = await self._metastore.get_many([key])
        if found is not None and (other := decode(DriveRecord, found.value)).node != record.node:
            if drive not in self._refused:
                _log.error(
                    "drive %s (%s) is served by node %s already, as %s: two drives have one identity",
                    drive.hex(),
                    record.path,
                    other.node,
                    other.path,
                )
            self._refused.add(drive)
            return
        self._refused.discard(drive)
        self._written[drive] = None
        if await self._put(key, encode(record), found):
            self._written[drive] = record
        else:
            self._changed.set()

    async def _put(self, key: bytes, value: bytes, found: KeyValue | None) -> bool:
        before = unchanged(key, 0 if found is None else found.mod_revision)
        done = await self._metastore.txn(Txn((before,), (Put(key, value, self._lease),)))
        return done.succeeded

    async def _forget_drive(self, drive: DriveId) -> None:
        key = drive_key(drive)
        (found,) = await self._metastore.get_many([key])
        if found is not None and found.lease == self._lease:
            await self._metastore.txn(
                Txn((unchanged(key, found.mod_revision),), (DeleteRange(key),))
            )
        self._written.pop(drive, None)
