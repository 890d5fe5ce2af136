"""Entry point of the store's processes: `python -m ops.process ROLE`, started by the supervisor.

Each reads its settings from standard input, reports on the status pipe with one line ("ready" or
"refused SENTENCE"), and ends on SIGTERM. It dies with its supervisor.
"""

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop

from ops.heartbeats import Pulse
from ops.refusal import Refused
from ops.settings import ProcessSettings, read_settings
from placement.allocator import SpareHeap, tune_allocator

_PR_SET_PDEATHSIG = 1
GC_THRESHOLD = 100_000
"""Allocations between collections of the youngest generation: requests make no cycles to speak of,
and collecting every 700 allocations costs more than a tenth of a request."""


Main = Callable[[ProcessSettings, asyncio.Event, Callable[[], None]], Awaitable[None]]
"""A role: settings, the event that asks it to stop, and what to call when it is ready."""


def _main_of(role: str) -> Main:
    # Imported here, so that each process loads only what its role needs.
    if role == "storage":
        from ops.storage_process import run_storage

        return run_storage
    if role == "worker":
        from ops.worker_process import run_worker

        return run_worker
    if role == "keeper":
        from ops.keeper_process import run_keeper

        return run_keeper
    if role == "admin":
        from ops.gateway_process import run_gateway_admin

        return run_gateway_admin
    raise SystemExit(f"unknown role {role!r}")


def _die_with_parent(supervisor: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the request took effect
        os._exit(1)


def settle_memory() -> None:
    """For a process that has started: from now on its heap gives back what it does not use."""
    if (heap := SpareHeap.of_process()) is not None:
        heap.watch()
    gc.collect()
    gc.freeze()  # what start-up built lives as long as the process: never scan it again


async def _run(main: Main, settings: ProcessSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    pulse = Pulse(settings.heartbeat_fd, settings.heartbeat_slot)

    def ready() -> None:
        pulse.begin()
        settle_memory()
        os.write(settings.status_fd, b"ready\n")

    await main(settings, stop, ready)


def start() -> int:
    """Run the role named on the command line; the exit status."""
    # A terminal hangs up on the whole process group; what it means is the supervisor's decision.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _die_with_parent(int(sys.argv[2]))
    settings = read_settings()
    tune_allocator()
    gc.set_threshold(GC_THRESHOLD, 50, 100)
    try:
        uvloop.run(_run(_main_of(sys.argv[1]), settings))
    except Refused as error:
        os.write(settings.status_fd, f"refused {error}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(start())
