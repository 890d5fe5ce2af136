"""Kills the processes of a cluster one after another under load, and starts them again."""

import itertools
import threading
import time
from collections.abc import Iterable
from types import TracebackType

from ops.local_cluster import LocalCluster, Member
from tests.functional.test_cluster import answers
from tests.waiting import eventually

READY_SECONDS = 60.0


def in_turn(cluster: LocalCluster, without: Iterable[str] = ()) -> list[str]:
    """A node, a gateway, a member of etcd and the keeper, then the next of each, until every one
    had its turn."""
    kinds = ("node", "gateway", "etcd", "keeper")
    spared = set(without)
    ranks: list[list[str]] = [
        [m.name for m in cluster.members.values() if m.kind == kind and m.name not in spared]
        for kind in kinds
    ]
    rows = itertools.zip_longest(*ranks)
    return [name for row in rows for name in row if name is not None]


def start_again(cluster: LocalCluster, member: Member) -> None:
    """As it was, and wait until it serves."""
    member.start()
    match member.kind:
        case "etcd":
            url = cluster.etcd_urls[int(member.name.removeprefix("etcd")) - 1]
            eventually(lambda: answers(f"{url}/health"), READY_SECONDS)
        case "gateway":
            url = cluster.admin_urls[int(member.name.removeprefix("gateway")) - 1]
            eventually(lambda: answers(f"{url}/health/ready"), READY_SECONDS)
        case _:
            member.await_words("ready ", READY_SECONDS)


class Killer:
    """While the block runs: SIGKILL to one process, a while later its start, a while later the next."""

    def __init__(
        self, cluster: LocalCluster, victims: Iterable[str], *, away_seconds: float = 2.0
    ) -> None:
        self._cluster = cluster
        self._victims = itertools.cycle(victims)
        self._away_seconds = away_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._failure: BaseException | None = None
        self.killed: list[str] = []

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None and self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                member = self._cluster.members[next(self._victims)]
                member.kill()
                self.killed.append(member.name)
                # Whatever happens, it is started again: only one is away at a time.
                time.sleep(self._away_seconds)
                start_again(self._cluster, member)
                self._stop.wait(self._away_seconds)
        except BaseException as failure:
            self._failure = failure
