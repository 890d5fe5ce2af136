"""The embedded metastore when its owner goes away, and what the socket must not change."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable

import pytest

from placement.clock import SystemClock
from placement.errors import MetastoreUnavailable, OutcomeUnknown, RequestTooLarge
from placement.metastore import serve
from placement.metastore.port import Event, Put, Range, Txn, TxnResult
from placement.metastore.remote import EmbeddedMetastore
from placement.metastore.serve import serve_metastore
from placement.metastore.sqlite import SqliteOwner
from placement.metastore.wire import Verb
from placement.rpc.client import RpcClient
from placement.rpc.frames import RemoteError
from placement.rpc.server import Request, RpcServer

PUT = Txn(success=(Put(b"k", b"v"),))


def test_a_lost_owner_leaves_outcomes_unknown_reads_working_and_watches_ended() -> None:
    async def scene(folder: str) -> None:
        path, socket = os.path.join(folder, "m"), os.path.join(folder, "s")
        owner = SqliteOwner(path, SystemClock())
        asked = asyncio.Event()

        def swallow(request: Request) -> None:
            asked.set()

        mute = RpcServer({**serve_metastore(owner), Verb.TXN: swallow}, name="mute")
        await mute.listen_unix(socket)
        client = await RpcClient.connect(socket, name="gateway")
        store = EmbeddedMetastore(path, client, timeout_seconds=5)
        watch = store.watch(b"k")
        await anext(watch)
        sent = asyncio.ensure_future(store.txn(PUT))
        await asked.wait()
        await mute.close(drain_seconds=0)
        with pytest.raises(OutcomeUnknown):
            await sent
        with pytest.raises(MetastoreUnavailable):
            await anext(watch)
        with pytest.raises(MetastoreUnavailable) as caught:
            await store.txn(PUT)
        assert not isinstance(caught.value, OutcomeUnknown)
        with pytest.raises(MetastoreUnavailable):
            await store.lease_grant(5)
        assert (await store.get_many((b"k",))) == (None,)
        server = RpcServer(serve_metastore(owner), name="owner")
        await server.listen_unix(socket)
        while not client.connected:  # noqa: ASYNC110 — a test may poll
            await asyncio.sleep(0.01)
        assert (await store.txn(PUT)).succeeded
        assert (await store.get_many((b"k",)))[0] is not None
        await store.close()
        await client.close()
        await server.close(drain_seconds=0)
        await owner.close()

    with tempfile.TemporaryDirectory(prefix="meta") as folder:
        asyncio.run(scene(folder))


def test_a_watcher_that_leaves_is_forgotten_and_nonsense_is_refused() -> None:
    async def scene(folder: str) -> None:
        path, socket = os.path.join(folder, "m"), os.path.join(folder, "s")
        owner = SqliteOwner(path, SystemClock())
        server = RpcServer(serve_metastore(owner), name="owner")
        await server.listen_unix(socket)
        client = await RpcClient.connect(socket, name="gateway")
        store = EmbeddedMetastore(path, client)
        await anext(store.watch(b"k"))
        assert len(owner._watches._watches) == 1
        for verb in Verb:
            if verb is not Verb.WATCH:
                with pytest.raises(RemoteError):
                    await client.call(verb, b"\xc1 nonsense")
        with pytest.raises(RequestTooLarge):
            await store.txn(Txn(success=(Put(b"k", bytes(20 << 20)),)))
        await client.close()
        async with asyncio.timeout(5):
            while owner._watches._watches:  # noqa: ASYNC110 — a test may poll
                await asyncio.sleep(0.01)
        await store.close()
        await server.close(drain_seconds=0)
        await owner.close()

    with tempfile.TemporaryDirectory(prefix="meta") as folder:
        asyncio.run(scene(folder))


def test_what_one_process_committed_another_reads_at_once() -> None:
    async def scene(folder: str) -> None:
        path, socket = os.path.join(folder, "m"), os.path.join(folder, "s")
        owner = SqliteOwner(path, SystemClock())
        server = RpcServer(serve_metastore(owner), name="owner")
        await server.listen_unix(socket)
        clients = [await RpcClient.connect(socket, name=f"g{i}") for i in range(3)]
        stores = [EmbeddedMetastore(path, client) for client in clients]
        for round_ in range(50):
            writer = stores[round_ % 3]
            result: TxnResult = await writer.txn(Txn(success=(Put(b"k", b"%d" % round_),)))
            for store in stores:
                kv = (await store.get_many((b"k",)))[0]
                assert kv is not None
                assert kv.value == b"%d" % round_
                assert (await store.range(Range(b"k"))).revision == result.revision
        for store, client in zip(stores, clients, strict=True):
            await store.close()
            await client.close()
        await server.close(drain_seconds=0)
        await owner.close()

    with tempfile.TemporaryDirectory(prefix="meta") as folder:
        asyncio.run(scene(folder))


def test_changes_are_gathered_for_who_keeps_books(monkeypatch: pytest.MonkeyPatch) -> None:
    pace_seconds = 0.5
    monkeypatch.setattr(serve, "GATHERING_SECONDS", pace_seconds)

    async def scene(store: EmbeddedMetastore) -> None:
        loop = asyncio.get_running_loop()
        watch = store.watch(b"k", b"l", previous=True)
        await anext(watch)
        began = loop.time()
        for number in range(20):
            await store.txn(Txn(success=(Put(b"k%d" % (number // 2), b"%d" % number),)))
        events: list[Event] = []
        batches = 0
        while len(events) < 20:
            events += (await anext(watch)).events
            batches += 1
        assert batches <= 2 + (loop.time() - began) / pace_seconds
        assert [event.kv.value for event in events] == [b"%d" % number for number in range(20)]
        befores = [event.previous for event in events]
        assert [kv and kv.value for kv in befores[1::2]] == [b"%d" % n for n in range(0, 20, 2)]
        await watch.aclose()  # type: ignore[attr-defined]

    run_with_owner(scene)


def test_who_keeps_books_does_not_fall_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches as large as they may be follow each other without a pause."""
    monkeypatch.setattr(serve, "GATHERING_SECONDS", 3600.0)
    monkeypatch.setattr(serve, "GATHERED_EVENTS", 8)

    async def scene(store: EmbeddedMetastore) -> None:
        for number in range(4):
            puts = tuple(Put(b"k%d/%d" % (number, n), b"") for n in range(10))
            done = await store.txn(Txn(success=puts))
        watch = store.watch(b"k", b"l", start_revision=done.revision - 3, previous=True)
        seen = 0
        while seen < 40:
            seen += len((await anext(watch)).events)
        puts = tuple(Put(b"k5/%d" % n, b"") for n in range(10))
        await store.txn(Txn(success=puts))
        async with asyncio.timeout(60):
            assert len((await anext(watch)).events) == 10
        await watch.aclose()  # type: ignore[attr-defined]

    run_with_owner(scene)


def run_with_owner(scene: Callable[[EmbeddedMetastore], Awaitable[None]]) -> None:
    """A scene with a store over an owner's socket."""

    async def run(folder: str) -> None:
        path, socket = os.path.join(folder, "m"), os.path.join(folder, "s")
        owner = SqliteOwner(path, SystemClock())
        server = RpcServer(serve_metastore(owner), name="owner")
        await server.listen_unix(socket)
        client = await RpcClient.connect(socket, name="keeper")
        store = EmbeddedMetastore(path, client)
        try:
            await scene(store)
        finally:
            await store.close()
            await client.close()
            await server.close(drain_seconds=0)
            await owner.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(folder))
