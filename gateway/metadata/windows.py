"""Write windows: what bounds how late the first commit of a group may come, whatever stood still.

A sweep's claim of a group tells a late commit that it lost, but it cannot stay for ever. So every
first commit compares that the window is open in which its shards began to be stored. The garbage
duty opens windows one after the other and closes old ones; a claim is forgotten only when every
window is closed that was open when it was made. A commit that came later than that is refused by
its window. No clock has a part in it, and no lease.

Open windows are the keys `m/window/<number>` that are there: the newest and the one before. That no
window was ever opened (`m/windowed` is absent) is the first of them.
"""

from collections.abc import Collection, Iterable

from gateway.metadata import keys
from placement.metastore.port import Compare, absent, exists


def window_compare(open_windows: Collection[int]) -> Compare:
    """What a commit compares whose shards begin to be stored now, or later."""
    if not open_windows:
        return _BEFORE_ALL
    return exists(keys.window(max(open_windows)))


def is_open(window: Compare, open_windows: Collection[int]) -> bool:
    """Whether a commit that compares it may still come."""
    if not open_windows:
        return window == _BEFORE_ALL
    return window in {exists(keys.window(number)) for number in open_windows}


def window_of(compares: Iterable[Compare]) -> Compare | None:
    """The window among what a transaction compares."""
    return next(filter(is_window, compares), None)


def is_window(compare: Compare) -> bool:
    """Whether it is about a write window."""
    return compare.key == keys.WINDOWED or compare.key.startswith(keys.WINDOWS)


_BEFORE_ALL = absent(keys.WINDOWED)
