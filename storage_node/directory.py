"""The nodes of a cluster as a mapping from name to client, which follows who registers.

A node whose lease has ended stays in `NodeDirectory`, since it may well still answer (all leases
can be lost at once while every node is well), but not in its `live` part. A name that nobody
registered has a client too: one that reaches nobody.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from placement.errors import PeerUnavailable
from placement.membership import NodeRecord
from placement.membership_view import LiveView
from placement.rpc.client import Reply
from storage_node.client import NodeClient
from storage_node.port import Buffer, NodePort
from storage_node.wire import Verb

GONE_MAX = 256
"""Clients kept of nodes that are not registered any more."""

Connect = Callable[[NodeRecord], NodePort]
"""Makes a client that connects by itself."""


class AbsentNode(NodeClient):
    """A node of which only the name is known."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def _call(
        self,
        verb: Verb,
        header: bytes,
        payload: Sequence[Buffer] = (),
        *,
        background: bool = False,
        timeout_seconds: float = 0.0,
    ) -> Reply:
        raise PeerUnavailable(f"node {self._name} is not registered")

    async def close(self) -> None:
        """Nothing to release."""


class NodeDirectory(Mapping[str, NodePort]):
    """Clients of all nodes known. Iterating is safe while nodes come and go."""

    def __init__(self, view: LiveView, connect: Connect) -> None:
        self._view = view
        self._connect = connect
        self._clients: dict[str, tuple[str, NodePort]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.live = _Live(self, view)
        """Those of nodes whose lease lives."""
        view.changed.append(self._follow)
        self._follow()

    def __getitem__(self, name: str) -> NodePort:
        known = self._clients.get(name)
        return AbsentNode(name) if known is None else known[1]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._clients))

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, name: object) -> bool:
        return name in self._clients

    async def close(self) -> None:
        """Release every connection."""
        with suppress(ValueError):
            self._view.changed.remove(self._follow)
        clients, self._clients = self._clients, {}
        for _, client in clients.values():
            await client.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _follow(self) -> None:
        for name, record in self._view.nodes.items():
            known = self._clients.get(name)
            if known is None or known[0] != record.address:
                self._drop(name)
                self._clients[name] = (record.address, self._connect(record))
        gone = [name for name in self._clients if name not in self._view.nodes]
        for name in gone[: max(len(gone) - GONE_MAX, 0)]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        known = self._clients.pop(name, None)
        if known is not None:
            task = asyncio.get_running_loop().create_task(known[1].close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class _Live(Mapping[str, NodePort]):
    """The part whose lease lives."""

    def __init__(self, directory: NodeDirectory, view: LiveView) -> None:
        self._directory = directory
        self._view = view

    def __getitem__(self, name: str) -> NodePort:
        return self._directory[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._view.nodes))

    def __len__(self) -> int:
        return len(self._view.nodes)

    def __contains__(self, name: object) -> bool:
        return name in self._view.nodes
