"""`python -m tests.sim.moving`: the simulated cluster, with storage classes and rules that move every
object from one to the next while clients go on.

A seed takes another course here than in `tests.sim`. Some rules can be taken out, to see that it is
noticed.
"""

# What is changed is a name inside a module: mypy cannot know that on purpose.
# mypy: disable-error-code="attr-defined,assignment,misc,method-assign,arg-type"

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

import ops.keeper.recoding
from gateway.domain.lifecycle import LifecycleRule, Transition
from gateway.metadata.lifecycle import pack_lifecycle
from gateway.metadata.records import BucketRecord
from ops.keeper.lifecycle import Lifecycle
from ops.keeper.recoding import Recoding
from ops.map_store import MapStore
from placement.map_changes import with_class
from placement.membership import CLUSTER
from placement.metastore.port import exists
from placement.schemes import Scheme
from tests.sim.__main__ import tell
from tests.sim.etcd import EtcdClient
from tests.sim.run import OPERATIONS, Verdict, run_seed
from tests.sim.workload import BUCKET, Client
from tests.sim.world import World

DAY_MS = 2_000
MOVES = (
    Transition(storage_class="COLD", days=1),
    Transition(storage_class="COLDER", days=5),
)
ALWAYS = exists(CLUSTER)
"""A compare that holds."""

moved = [0]
"""How many objects keepers moved in this process."""


def objects_move(world: World) -> None:
    """COLD has a data shard fewer than the default scheme, COLDER as many; writes name either.

    A copy of a multipart object that is stored again has another ETag, as at AWS; the model has no
    notion of that. So seeds have either copies or uploads.
    """
    start, send = World.start, Client.send
    begin, swap = Lifecycle.__init__, Recoding.swap

    async def started(self: World) -> None:
        await start(self)
        client = EtcdClient(self.etcd, self.process("class operator"))
        k, m = self.shape.scheme.k, self.shape.scheme.m
        for name, scheme in (("COLD", Scheme(max(k - 1, 1), m)), ("COLDER", Scheme(k, m))):
            await MapStore(client).change(
                lambda now, name=name, scheme=scheme: with_class(now, name, scheme)
            )
        rules = pack_lifecycle((LifecycleRule(id="r", enabled=True, transitions=MOVES),))

        def change(record: BucketRecord) -> BucketRecord:
            return msgspec.structs.replace(record, lifecycle=rules)

        await self.observer.metadata.buckets.change_unasked(BUCKET, change)

    async def sent(
        self: Client,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        pace: float = 0.0,
    ) -> Any:
        makes = (method == "PUT" and path.count("/") > 1 and "?" not in path) or (
            method == "POST" and path.endswith("?uploads")
        )
        known = self.world.observer.topology.map.classes
        if makes and known and self.random.random() < 0.3:
            headers = {**(headers or {}), "x-amz-storage-class": self.random.choice(known)[0]}
        return await send(self, method, path, body, headers, pace=pace)

    def begun(self: Lifecycle, *arguments: Any) -> None:
        begin(self, *arguments)
        self._day_ms, self.every_seconds = DAY_MS, 1.0

    async def swapped(self: Recoding, *arguments: Any) -> bool:
        done = await swap(self, *arguments)
        moved[0] += done
        return done

    World.start, Client.send = started, sent
    if world.seed % 2:
        Client.upload = Client.put
    else:
        Client.copy = Client.put
    Lifecycle.__init__, Recoding.swap = begun, swapped


def moves_ignore_what_they_replace(world: World) -> None:
    """The record that was judged is not compared when it is swapped."""
    objects_move(world)
    ops.keeper.recoding.unchanged = lambda key, revision: ALWAYS


def moves_keep_the_old_bytes_out_of_the_garbage(world: World) -> None:
    """What an object leaves behind is not queued."""
    objects_move(world)
    ops.keeper.recoding.end_of = lambda *_: ()


RULES: dict[str, Callable[[World], None]] = {
    rule.__name__: rule
    for rule in (
        objects_move,
        moves_ignore_what_they_replace,
        moves_keep_the_old_bytes_out_of_the_garbage,
    )
}


def _one(work: tuple[int, int, str]) -> tuple[Verdict, int]:
    seed, operations, rule = work
    whole = rule == objects_move.__name__
    return run_seed(seed, operations, RULES[rule], patient=whole), moved[0]


def main() -> int:
    """0 when every seed passed."""
    parser = argparse.ArgumentParser(prog="tests.sim.moving")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--rule", choices=RULES, default=objects_move.__name__)
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of bytes must have one order
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim.moving", *sys.argv[1:]])
    failed = 0
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        seeds = range(options.seed, options.seed + options.seeds)
        work = [(seed, options.operations, options.rule) for seed in seeds]
        for verdict, count in pool.imap(_one, work, chunksize=1):
            tell(verdict, journal=False)
            print(f"  {count} moves", flush=True)
            failed += bool(verdict.error)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
