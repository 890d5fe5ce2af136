"""What the heap had to spare for a second goes; what comes and goes stays."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence

import pytest

from placement import allocator
from placement.allocator import LOOKS, SpareHeap

MIB = 1 << 20


def kept_of(tops: Sequence[int]) -> list[int]:
    """What is kept, each time something is given back, where looks find these tops."""
    kept: list[int] = []
    left = iter(tops)
    heap = SpareHeap(lambda: next(left), kept.append)
    for _ in tops:
        heap.look()
    return kept


def test_what_every_look_finds_free_is_given_back() -> None:
    assert kept_of([9 * MIB] * LOOKS) == [0]
    assert kept_of([9 * MIB] * (LOOKS - 1)) == []
    assert kept_of([9 * MIB] * 2 * LOOKS) == [0, 0]


def test_what_comes_and_goes_is_kept() -> None:
    assert kept_of([16 * MIB] * (LOOKS - 3) + [5 * MIB, 7 * MIB, 14 * MIB]) == [9 * MIB]
    assert kept_of([16 * MIB, 0] * 2 * LOOKS) == []


def test_little_is_not_worth_it() -> None:
    assert kept_of([allocator.GIVE_BACK_SIZE_BYTES_MIN - 1] * 9 * LOOKS) == []


def test_a_loop_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "LOOK_SECONDS", 0.001)

    async def scenario() -> None:
        given_back = asyncio.Semaphore(0)
        SpareHeap(lambda: 5 * MIB, lambda _: given_back.release()).watch()
        for _ in range(3):
            await given_back.acquire()

    asyncio.run(asyncio.wait_for(scenario(), 30))


PROGRAM = """
from pathlib import Path
from placement.allocator import LOOKS, SpareHeap, tune_allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

tune_allocator()
heap = SpareHeap.of_process()
assert heap is not None
for kept in [bytes(range(256)) * 4000 for _ in range(12)]:
    pass
del kept
full = resident()
for _ in range(LOOKS):
    heap.look()
print(full - resident())
"""


def test_the_kernel_gets_a_real_heaps_top() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8_000_000
