"""One seed from its beginning to its verdict."""

import asyncio
import hashlib
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.sim.loop import VirtualLoop
from tests.sim.nemesis import Nemesis
from tests.sim.truth import check_history, final_reads, unfinished, untold
from tests.sim.workload import Wrong
from tests.sim.world import World, prepare

OPERATIONS = 520
CALM_SECONDS = 20.0
"""After the last fault everybody answers again within so long."""
QUIET_SECONDS = 900.0


@dataclass
class Verdict:
    """What came of a seed. `digest` names the whole course of events."""

    seed: int
    operations: int
    faults: int
    seconds: float
    digest: str
    error: str = ""
    journal: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    answers: dict[int, int] = field(default_factory=dict)


def run_seed(
    seed: int, operations: int = OPERATIONS, broken: Callable[[World], None] | None = None
) -> Verdict:
    """Run it; `broken` may take a rule away first. In a process of its own: what is frozen there is
    never freed."""
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="ostraka-sim-", dir=shared) as folder:
        loop = VirtualLoop()
        asyncio.set_event_loop(loop)
        world = World(loop, Path(folder), seed, operations)
        prepare(world)
        if broken is not None:
            broken(world)
        error = ""
        try:
            loop.run_until_complete(_live(world))
        except Exception as caught:  # whatever it is, it is this seed's verdict
            cause: BaseException = caught
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            story = "".join(traceback.format_exception(cause))
            error = str(cause) if isinstance(cause, Wrong) else story
        return Verdict(
            seed=seed,
            operations=world.operations,
            faults=sum(world.faults.values()),
            seconds=loop.time(),
            digest=_digest(world),
            error=error,
            journal=world.journal,
            counts=dict(sorted(world.faults.items())),
            answers=dict(sorted(world.answers.items())),
        )


async def _live(world: World) -> None:
    await world.start()
    nemesis = Nemesis(world)
    striking = asyncio.ensure_future(nemesis.run())
    await world.work()
    nemesis.stopped = True
    await striking
    await nemesis.mend()
    world.say("quiet")
    await asyncio.sleep(CALM_SECONDS)
    await final_reads(world)
    check_history(world)
    await world.until("the cluster comes to rest", lambda: unfinished(world), QUIET_SECONDS)
    await world.until("the drives tell the metadata", lambda: untold(world), QUIET_SECONDS)
    await final_reads(world)
    check_history(world)
    for gateway in world.gateways:
        world.problems += gateway.cut_bodies
    if world.problems:
        raise Wrong("\n".join(world.problems[:5]))


def _digest(world: World) -> str:
    told = "\n".join([*world.journal, *map(str, world.history.acts), str(world.loop.steps)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]
