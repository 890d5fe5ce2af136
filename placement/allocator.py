"""The C library's heap, tuned for stripes, and what it is made to give back.

Thresholds and statistics are glibc's (mallopt(3), mallinfo(3), malloc_trim(3)). Elsewhere, and where
the C library is older than 2.33, nothing is tuned or given back.
"""

import asyncio
import ctypes
from collections import deque
from collections.abc import Callable
from functools import partial

LOOK_SECONDS = 0.25
LOOKS = 8
"""What lay free at the heap's top at each of so many looks was not needed for two seconds."""
GIVE_BACK_SIZE_BYTES_MIN = 4 << 20

# mallopt(3): the parameters, and the values chosen (measured with 1 MiB stripes under 4+2).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_SIZE_BYTES = 4 << 20
_TRIM_SIZE_BYTES = 16 << 20
_ARENAS_MAX = 2


def tune_allocator() -> bool:
    """Keep freed stripes in the heap instead of giving them back to the kernel page by page.

    glibc maps every allocation above 128 KiB afresh, so that coding a MiB costs hundreds of page
    faults: more than the coding. Called once by the main function of each process, before threads
    start. Memory stays bounded: an arena keeps at most `_TRIM_SIZE_BYTES` free at its top, there
    are at most `_ARENAS_MAX` of them, and `SpareHeap` gives back what the main one does not use.
    False where the C library has no `mallopt`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_MMAP_THRESHOLD, _MMAP_SIZE_BYTES),
        (_M_TRIM_THRESHOLD, _TRIM_SIZE_BYTES),
        (_M_ARENA_MAX, _ARENAS_MAX),
    )
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)


class SpareHeap:
    """Gives the kernel what a heap's top has had to spare for two seconds, while the loop turns."""

    def __init__(self, top_size_bytes: Callable[[], int], keep: Callable[[int], object]) -> None:
        """`top_size_bytes` tells what is free at the top; `keep` gives back all but so much."""
        self._top_size_bytes = top_size_bytes
        self._keep = keep
        self._seen: deque[int] = deque(maxlen=LOOKS)

    @classmethod
    def of_process(cls) -> "SpareHeap | None":
        """The C library's main heap; None where it tells nothing of it."""
        try:
            library = ctypes.CDLL(None)
            tell, trim = library.mallinfo2, library.malloc_trim
        except (OSError, AttributeError):
            return None
        tell.restype = _MallInfo
        trim.argtypes = [ctypes.c_size_t]
        return cls(lambda: int(tell().keepcost), trim)

    def watch(self) -> None:
        """Look from now on, on the running loop."""
        loop = asyncio.get_running_loop()
        loop.call_later(LOOK_SECONDS, partial(self._look_again, loop))

    def look(self) -> None:
        """One look; the last of `LOOKS` may give back."""
        now = self._top_size_bytes()
        self._seen.append(now)
        spare = min(self._seen)
        if len(self._seen) == LOOKS and spare >= GIVE_BACK_SIZE_BYTES_MIN:
            self._keep(now - spare)
            self._seen.clear()

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self.look()
        loop.call_later(LOOK_SECONDS, partial(self._look_again, loop))


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    )
