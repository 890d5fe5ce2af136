"""The embedded metastore when its owner goes away, and what the socket must not change."""

import asyncio
import os
import tempfile

import pytest

from placement.clock import SystemClock
from placement.errors import MetastoreUnavailable, OutcomeUnknown, RequestTooLarge
from placement.metastore.port import Put, Range, Txn, TxnResult
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
