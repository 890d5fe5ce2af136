"""The rule of reading a blob's shards: whom to ask next, and when it is enough. Pure.

The plan lives as long as one blob is read, step by step: what failed once is not asked again.
Data shards are asked first on the drives where the map expects them, avoiding drives that are loaded
and, more so, those known to be unwell; each failure brings in the next spare; when all expected places
are used up, the plan wants the nodes to be searched (`wants_search`), and takes what they found.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from gateway.domain.drive_load import DriveLoads
from placement.cluster_map import MapDrive
from placement.ids import DriveId, Slot


@dataclass(frozen=True, slots=True)
class Ask:
    """Read shard `index` from that drive, served by that node."""

    index: int
    drive: DriveId
    node: str


class ReadPlan:
    """One blob under k + m. Feed it outcomes, ask what `next_asks` says."""

    def __init__(
        self,
        k: int,
        m: int,
        orders: Iterable[Sequence[MapDrive]],
        avoid: Collection[Slot] = (),
        loaded: Collection[DriveId] = (),
        first: int = 0,
    ) -> None:
        """`orders`: the partition's drives in every open epoch, newest first. `avoid` and `loaded`
        are asked when the others do not suffice, loaded ones first. `first`: of copies, the index
        to begin with."""
        self._k = k
        self._width = k + m
        # Copies are all alike: any index serves for index 0.
        self._candidates: list[list[Ask]] = [[] for _ in range(self._width)]
        busy: list[list[Ask]] = [[] for _ in range(self._width)]
        unwell: list[list[Ask]] = [[] for _ in range(self._width)]
        for order in orders:
            for index, drive in enumerate(order[: self._width]):
                ask = Ask(index, drive.drive_id, drive.node)
                target = self._candidates
                if drive.slot in avoid:
                    target = unwell
                elif drive.drive_id in loaded:
                    target = busy
                if ask not in target[index]:
                    target[index].append(ask)
        self._reserves = [tier for tier in (busy, unwell) if any(tier)]
        self._first = first if k == 1 else 0
        self._doubtful: set[int] = set()
        """Indices that only a drive of the reserves may give."""
        self._searched = False
        self._wanted: tuple[int, ...] = tuple(range(k))
        self._good: set[int] = set()
        self._outstanding: dict[Ask, None] = {}
        self._late: set[Ask] = set()

    def begin(self, wanted: Sequence[int]) -> None:
        """A new step that needs these data indices (or any k of all)."""
        self._wanted = tuple(wanted)
        self._good = set()
        self._outstanding = {}
        self._late = set()

    @property
    def done(self) -> bool:
        """The fragments at hand suffice."""
        if self._k == 1:
            return bool(self._good)
        return len(self._good) >= self._k or all(i in self._good for i in self._wanted)

    @property
    def good_count(self) -> int:
        """Shards whose fragments of this step are at hand."""
        return len(self._good)

    @property
    def wants_search(self) -> bool:
        """Every expected place is used up: look for the shards on all drives of all nodes."""
        return not self.done and not self._outstanding and not self._searched

    @property
    def outstanding(self) -> tuple[Ask, ...]:
        """What was asked and not answered."""
        return tuple(self._outstanding)

    def next_asks(self) -> tuple[Ask, ...]:
        """Asks to send now; they are outstanding from here on."""
        if self.done:
            return ()
        pending = {ask.index for ask in self._outstanding if ask not in self._late}
        reachable = [i for i in range(self._width) if i in pending or self._candidates[i]]
        doubtful = self._doubtful
        if self._k > 1 and all(
            i in self._good or (i in reachable and i not in doubtful) for i in self._wanted
        ):
            chosen = [i for i in self._wanted if i not in self._good and i not in pending]
        else:
            short = self._k - len(self._good) - len(pending - self._good)
            spare = [i for i in reachable if i not in pending and i not in self._good]
            if self._first in spare:
                spare.sort(key=self._first.__ne__)
            if doubtful:
                spare.sort(key=doubtful.__contains__)
            chosen = spare[: max(short, 0)]
            if len(chosen) < short and self._promote():
                return self.next_asks()
        asks = tuple(self._candidates[index].pop(0) for index in chosen)
        self._outstanding.update(dict.fromkeys(asks))
        return asks

    def succeeded(self, ask: Ask) -> None:
        """The fragments came and were verified. The source serves later steps, too."""
        self._outstanding.pop(ask, None)
        self._good.add(ask.index)
        self._doubtful.discard(ask.index)
        if ask in self._late:
            self._late.discard(ask)
            self._candidates[ask.index].append(ask)
        else:
            self._candidates[ask.index].insert(0, ask)

    def failed(self, ask: Ask) -> None:
        """Missing, damaged, failed or unreachable: never asked again by this plan."""
        self._outstanding.pop(ask, None)
        self._late.discard(ask)

    def overdue(self, ask: Ask) -> None:
        """Later than usual: a spare is asked beside it, and it goes last in later steps."""
        if ask in self._outstanding:
            self._late.add(ask)

    def abandon(self) -> None:
        """The step ends with asks unanswered: keep their drives as the last to be asked."""
        for ask in self._outstanding:
            self._candidates[ask.index].append(ask)
        self._outstanding = {}
        self._late = set()

    def found(self, places: Iterable[Ask], failed: Collection[Ask]) -> None:
        """What the search of all nodes found; `failed` ones are left out."""
        self._searched = True
        for ask in places:
            known = self._candidates[ask.index] if 0 <= ask.index < self._width else None
            if known is not None and ask not in failed and ask not in known:
                known.append(ask)

    def _promote(self) -> bool:
        """Let the drives that are loaded, then those that are known to be unwell, have a try before
        giving up on them."""
        if not self._reserves:
            return False
        for index, asks in enumerate(self._reserves.pop(0)):
            if asks and not self._candidates[index]:
                self._doubtful.add(index)
            self._candidates[index].extend(asks)
        return True


def copy_to_ask(
    order: Sequence[MapDrive], avoid: Collection[Slot], loads: DriveLoads
) -> int | None:
    """Which of the drives that hold whole copies to ask, by its place in the order; None when all
    are unwell or loaded."""
    able = [
        index
        for index, drive in enumerate(order)
        if drive.slot not in avoid and drive.drive_id not in loads.loaded
    ]
    if not able:
        return None
    return able[loads.choose([order[index].drive_id for index in able])]
