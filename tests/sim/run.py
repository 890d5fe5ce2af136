"""One seed from its beginning to its verdict."""

import asyncio
import hashlib
import tempfile
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ops.keeper.garbage
import ops.keeper.windows
from storage_node.identity import DriveRefused
from tests.sim.buckets import check_all_versions
from tests.sim.drive_life import Loss, live
from tests.sim.loop import VirtualLoop
from tests.sim.model import Wrong
from tests.sim.nemesis import Nemesis
from tests.sim.quotas import check_limits
from tests.sim.scenarios import SCENARIOS
from tests.sim.scenarios.scene import Scenario, Scene
from tests.sim.truth import check_history, final_reads, unfinished, untold
from tests.sim.workload import Client
from tests.sim.world import World, prepare

OPERATIONS = 520
"""Requests of clients."""
CALM_SECONDS = 12.0
"""After the last fault everybody answers again within so long."""
QUIET_SECONDS = 900.0
BROKEN_QUIET_SECONDS = 260.0
"""For the cluster to come to rest; whoever waits for a failure waits less."""
SWEEP_SECONDS = 4.0
SWEEPLESS_SECONDS = 1e6
"""Between two sweeps of a scenario."""


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
    acts: list[str] = field(default_factory=list)


def run_seed(
    seed: int,
    operations: int = OPERATIONS,
    broken: Callable[[World], None] | None = None,
    *,
    patient: bool = False,
) -> Verdict:
    """Run it; `broken` may take a rule away first, or, where one is `patient`, change what else is to
    come to rest. In a process of its own: what is frozen there is never freed."""
    with tempfile.TemporaryDirectory(prefix="ostraka-sim-", dir=_shared()) as folder:
        loop = VirtualLoop()
        asyncio.set_event_loop(loop)
        world = World(loop, Path(folder), seed, operations)
        prepare(world)
        waits = patient or broken is None
        world.quiet_seconds = QUIET_SECONDS if waits else BROKEN_QUIET_SECONDS
        if broken is not None:
            broken(world)
        return _verdict(world, _live(world))


def run_scenario(name: str, broken: Callable[[World], None] | None = None) -> Verdict:
    """A script in the place of chance; see `run_seed`."""
    script = SCENARIOS[name]
    with tempfile.TemporaryDirectory(prefix="ostraka-sim-", dir=_shared()) as folder:
        loop = VirtualLoop()
        asyncio.set_event_loop(loop)
        world = World(loop, Path(folder), 0, 0, script.shape)
        world.partitions = script.partitions
        prepare(world)
        ops.keeper.garbage.GRACE_SECONDS = script.garbage_seconds
        if script.window_seconds is not None:
            ops.keeper.garbage.RETENTION_SECONDS = 0.0
            ops.keeper.windows.WINDOW_SECONDS = script.window_seconds
        world.keeper_count = script.keepers
        world.sweep_seconds = SWEEP_SECONDS if script.sweeps else SWEEPLESS_SECONDS
        world.quiet_seconds = BROKEN_QUIET_SECONDS
        if broken is not None:
            broken(world)
        return _verdict(world, _play(world, script))


def _verdict(world: World, life: Coroutine[Any, Any, None]) -> Verdict:
    error = ""
    try:
        world.loop.run_until_complete(life)
    except Exception as caught:  # whatever it is, it is this seed's verdict
        cause: BaseException = caught
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        story = "".join(traceback.format_exception(cause))
        error = str(cause) if isinstance(cause, Wrong) else story
    return Verdict(
        seed=world.seed,
        operations=world.operations,
        faults=sum(world.faults.values()),
        seconds=world.loop.time(),
        digest=_digest(world),
        error=error,
        journal=world.journal,
        counts=dict(sorted(world.faults.items())),
        answers=dict(sorted(world.answers.items())),
        acts=[str(act) for act in world.history.acts],
    )


def run_drive_seed(seed: int, broken: Callable[[], None] | None = None) -> Verdict:
    """The life of a single drive instead: its operations and faults are not counted."""
    with tempfile.TemporaryDirectory(prefix="ostraka-sim-", dir=_shared()) as folder:
        if broken is not None:
            broken()
        error = ""
        try:
            live(Path(folder) / "drive", seed)
        except (Loss, AssertionError, DriveRefused) as caught:
            error = str(caught) or repr(caught)
        return Verdict(seed=seed, operations=0, faults=0, seconds=0.0, digest="", error=error)


def _shared() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


async def _live(world: World) -> None:
    await world.start()
    nemesis = Nemesis(world)
    striking = asyncio.ensure_future(nemesis.run())
    await world.work(check_history)
    nemesis.stopped = True
    await striking
    await nemesis.mend()
    world.say("quiet")
    await asyncio.sleep(CALM_SECONDS)
    await final_reads(world)
    check_history(world)
    await world.until("the cluster comes to rest", lambda: unfinished(world), world.quiet_seconds)
    await world.until("the drives tell the metadata", lambda: untold(world), world.quiet_seconds)
    await check_all_versions(world, Client(world, world.process("archivist")))
    await check_limits(world, Client(world, world.process("cellarer")))
    await final_reads(world)
    check_history(world)
    _complain(world)


async def _play(world: World, script: Scenario) -> None:
    await world.start()
    await script.act(Scene(world))
    _complain(world)
    check_history(world)
    await final_reads(world)
    check_history(world)
    if script.rests:
        await world.until(
            "the cluster comes to rest", lambda: unfinished(world), world.quiet_seconds
        )
        await final_reads(world)
        check_history(world)
    _complain(world)


def _complain(world: World) -> None:
    for gateway in world.gateways:
        world.problems += gateway.cut_bodies
    if world.problems:
        raise Wrong("\n".join(world.problems[:5]))


def _digest(world: World) -> str:
    told = "\n".join([*world.journal, *map(str, world.history.acts), str(world.loop.steps)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]
