"""What a seed leans to: which calls and faults it prefers, and where it lays ambushes.

A fair mixture of everything seldom meets an interleaving that needs three things in a row. A tilted
seed draws from the same calls and faults, but often those that belong together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

ACTS: Mapping[str, int] = {
    "put": 24,
    "get": 24,
    "head": 8,
    "delete": 10,
    "put_if_absent": 7,
    "put_if_same": 7,
    "copy": 6,
    "rename": 4,
    "list": 8,
    "upload": 3,
    "join_upload": 2,
    "delete_many": 2,
    "put_version": 2,
    "get_version": 1,
    "put_limited": 3,
    "end_limited": 1,
    "get_slowly": 1,
}
STRIKES: Mapping[str, int] = {
    "kill_node": 5,
    "cut_power": 5,
    "tear": 4,
    "blackout": 5,
    "partition": 5,
    "break_connections": 3,
    "slow_network": 2,
    "lose_answers": 4,
    "stop_etcd": 2,
    "lag_watches": 2,
    "kill_gateway": 3,
    "kill_keeper": 2,
    "stand_still": 3,
    "ambush": 4,
    "flip_bits": 6,
    "err": 3,
    "slow_flushes": 2,
    "fill": 2,
    "move": 3,
    "lose_drive": 2,
    "drain_and_return": 2,
    "jump_clock": 2,
    "leave_for_long": 1,
}
GATEWAY, KEEPER = "gateway", "keeper"


@dataclass(frozen=True, slots=True)
class Lure:
    """An ambush that may be laid: see `etcd.Ambush`. It lasts from `least` to `most` seconds."""

    label: str
    fate: str
    least: float
    most: float
    whose: str = GATEWAY
    then: str = ""
    """What somebody else does in the meantime: a call of clients, or a strike."""


_ANY = (
    Lure("object", "still", 0.5, 8.0),
    Lure("object", "lost", 0.1, 4.0),
    Lure("delete", "never came", 0.1, 4.0),
    Lure("rename", "lost", 0.1, 4.0),
    Lure("finish", "killed", 0.0, 0.0),
    Lure("look", "still after", 0.5, 6.0),
    Lure("map", "lost", 0.1, 2.0, ""),
    Lure("claim", "still", 0.5, 20.0, KEEPER),
    Lure("marks", "still after", 0.5, 5.0, KEEPER),
)
_LATE = 30.0, 48.0, "gateway0"  # the others go on meanwhile


@dataclass(frozen=True, slots=True)
class Tilt:
    """Weights in the place of the usual ones."""

    name: str
    acts: Mapping[str, int] = field(default_factory=dict)
    strikes: Mapping[str, int] = field(default_factory=dict)
    lures: tuple[Lure, ...] = _ANY
    keys: tuple[int, int] = (4, 12)
    quiet_seconds_max: float = 2.6
    sweep_seconds: float = 30.0
    garbage_seconds: float = 30.0
    """How long garbage waits before it is deleted."""
    watch_lag_seconds: float = 3.0


TILTS = (
    Tilt("fair"),
    Tilt(
        "late commits",
        acts={"put": 20, "copy": 2, "rename": 1, "list": 3},
        strikes={"ambush": 50, "jump_clock": 10},
        lures=(
            Lure("object", "still", *_LATE),
            Lure("object", "still", *_LATE),
            Lure("object", "lost", *_LATE, "rewrite_all"),
            Lure("claim", "still", 2.0, 12.0, KEEPER),
        ),
        keys=(3, 5),
        sweep_seconds=4.0,
    ),
    Tilt(
        "copies",
        acts={
            "put": 12,
            "copy": 22,
            "rename": 14,
            "delete": 10,
            "list": 3,
            "upload": 2,
            "get_slowly": 0,
        },
        strikes={"ambush": 30},
        lures=(
            Lure("object", "still", 10.0, 18.0, "gateway0", "rewrite_all"),
            Lure("object", "still", 10.0, 18.0, "gateway0", "rewrite_all"),
            Lure("look", "still after", 10.0, 18.0, "gateway0", "rewrite_all"),
            Lure("rename", "still", 1.0, 8.0),
            Lure("rename", "lost", 0.5, 5.0),
            Lure("claim", "still", 1.0, 12.0, KEEPER),
        ),
        keys=(6, 9),
        quiet_seconds_max=2.0,
        garbage_seconds=4.0,
    ),
    Tilt(
        "lost answers",
        acts={
            "put": 18,
            "put_if_absent": 14,
            "put_if_same": 16,
            "delete": 16,
            "copy": 3,
            "put_limited": 8,
            "end_limited": 3,
        },
        strikes={"ambush": 50, "lose_answers": 10},
        lures=(
            Lure("object", "lost", 0.5, 4.0, then="rewrite_all"),
            Lure("object", "lost", 0.5, 4.0),
            Lure("object", "lost all", 1.0, 6.0),
            Lure("object", "never came", 0.5, 3.0),
            Lure("delete", "never came", 1.0, 4.0, then="replace_same"),
            Lure("delete", "never came", 1.0, 4.0, then="replace_same"),
            Lure("delete", "lost", 0.5, 4.0),
            Lure("rename", "lost", 0.5, 4.0),
        ),
        keys=(3, 4),
        quiet_seconds_max=2.0,
    ),
    Tilt(
        "buckets",
        acts={
            "remake_bucket": 7,
            "get_slowly": 0,
            "put": 26,
            "list": 12,
            "upload": 4,
            "join_upload": 3,
        },
        strikes={"lag_watches": 16, "ambush": 20, "partition": 8},
        lures=(
            Lure("object", "still", 2.0, 6.0, then="remake_bucket"),
            Lure("object", "still", 2.0, 6.0, then="remake_bucket"),
            Lure("object", "lost", 0.5, 3.0),
            Lure("look", "still after", 2.0, 6.0, then="remake_bucket"),
            Lure("upload", "still", 2.0, 5.0, then="remake_bucket"),
            Lure("end of bucket", "lost", 0.1, 3.0),
        ),
        keys=(2, 4),
        watch_lag_seconds=8.0,
    ),
    Tilt(
        "uploads",
        acts={"upload": 30, "join_upload": 40, "put": 8, "get": 16, "copy": 4, "list": 3},
        strikes={"ambush": 40, "kill_gateway": 6},
        lures=(
            Lure("upload", "still", 1.0, 6.0, then="put_shared_parts"),
            Lure("upload", "still", 1.0, 6.0, then="put_shared_parts"),
            Lure("upload", "killed", 0.0, 0.0),
            Lure("upload", "lost", 0.1, 3.0),
            Lure("finish", "killed", 0.0, 0.0),
            Lure("finish", "killed before", 0.0, 0.0),
            Lure("finish", "lost", 0.5, 5.0),
            Lure("finish", "still", 0.5, 5.0),
            Lure("part", "still", 2.0, 6.0, then="complete_shared"),
            Lure("part", "still", 2.0, 6.0, then="complete_shared"),
            Lure("part", "lost", 0.5, 4.0),
        ),
        keys=(2, 4),
        quiet_seconds_max=2.0,
    ),
    Tilt(
        "moves",
        acts={"put": 34},
        strikes={
            "drain_and_return": 24,
            "lose_drive": 6,
            "move": 6,
            "ambush": 24,
            "kill_keeper": 5,
        },
        lures=(
            Lure("object", "still", 15.0, 40.0, "gateway0", "drain_and_return"),
            Lure("object", "still", 4.0, 25.0, "gateway0", "drain_and_return"),
            Lure("part", "still", 4.0, 25.0),
            Lure("map", "lost", 0.1, 2.0, ""),
        ),
        keys=(8, 14),
        quiet_seconds_max=3.0,
    ),
    Tilt(
        "absent drives",
        acts={"put": 40},
        strikes={
            "err": 14,
            "kill_node": 12,
            "slow_flushes": 6,
            "leave_for_long": 6,
            "leave_in_twos": 20,
            "leave_while_etcd_is_unwell": 20,
            "ambush": 10,
        },
        lures=(
            Lure("marks", "still after", 0.5, 6.0, KEEPER),
            Lure("object", "still", 0.5, 6.0),
        ),
        keys=(6, 12),
    ),
    Tilt(
        "versions",
        acts={"put_version": 40, "get_version": 16, "put": 12},
        strikes={"jump_clock": 16, "ambush": 8},
        keys=(3, 4),
    ),
    Tilt(
        "power",
        acts={"put": 40, "upload": 6, "get_slowly": 6},
        strikes={"cut_power": 14, "tear": 12, "blackout": 16, "flip_bits": 14},
        quiet_seconds_max=3.0,
    ),
)


def tilt_of(seed: int) -> Tilt:
    """Seeds in a row lean to everything in turn."""
    return TILTS[seed % len(TILTS)]
