"""Where a page of a large range probably ends, so that etcd need not look at all of the range.

etcd counts every key of a range, whatever the limit (treeIndex.Revisions): a page out of a million
keys costs it 0.2 s. So a page is asked for with an end of our own, guessed from how far apart the
keys of the page before lay; if the guess falls short, the rest is read at the same revision, from
there, with a wider one. The first page of a range pays, and teaches; guesses are never needed to be
right.
"""

from collections.abc import Sequence
from typing import NamedTuple

from placement.metastore.execution import EVERYTHING_AFTER
from placement.metastore.port import KeyValue, Range

LIMIT_MIN = 32
"""Smaller pages are not narrowed: they are few keys of a known place, or a question whether any."""
WIDER = (2, 32, 1024, 1 << 20)
"""How many times the expected width is tried, one after the other; then the whole range."""
_LARGE = 8
"""A range of so many pages is worth guessing."""
_RANGES_MAX = 1024
_DIGITS = 8


class _Density(NamedTuple):
    """How the keys of a page lay: equal in `depth` bytes, then `spread` apart a key."""

    depth: int
    spread: float


class Pages:
    """What is known of the ranges that were read lately, by their end."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Density] = {}

    def ends(self, request: Range) -> tuple[bytes, ...]:
        """The ends to try before the range's own, ascending; none when nothing is known."""
        end = request.range_end
        known = self._known.get(end) if end and request.limit >= LIMIT_MIN else None
        if known is None or end is None or request.count_only:
            return ()
        size = known.depth + _DIGITS
        begin = int.from_bytes(request.key[:size].ljust(size, b"\x00"))
        found = []
        for times in WIDER:
            # What runs over carries into the bytes before: the next folder, the next ten thousand.
            beyond = begin + int(known.spread * request.limit * times) + 1
            if beyond >= 1 << 8 * size:
                break
            guess = beyond.to_bytes(size)
            if guess >= end != EVERYTHING_AFTER:
                break
            found.append(guess)
        return tuple(found)

    def learn(self, request: Range, kvs: Sequence[KeyValue], count: int, *, narrowed: bool) -> None:
        """A page was read; `count` is of all of the range that was asked for."""
        end = request.range_end
        if not end or request.limit < LIMIT_MIN or request.count_only:
            return
        if not narrowed and count < request.limit * _LARGE:
            self._known.pop(end, None)
            return
        if len(kvs) < LIMIT_MIN:
            return
        first, last = kvs[0].key, kvs[-1].key
        depth = next(
            (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
        )
        spread = (_number(last[depth:]) - _number(first[depth:])) / (len(kvs) - 1)
        self._known.pop(end, None)
        if len(self._known) >= _RANGES_MAX:
            del self._known[next(iter(self._known))]
        self._known[end] = _Density(depth, spread)


def _number(key: bytes) -> int:
    return int.from_bytes(key[:_DIGITS].ljust(_DIGITS, b"\x00"))
