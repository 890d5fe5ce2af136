"""The rules that can be taken out, by name: how, and which seeds are likely to notice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from placement.membership import CLUSTER
from placement.metastore.port import exists

ALWAYS = exists(CLUSTER)
"""A compare that holds."""
DRIVE = "one drive"
"""The tilt of rules that the simulation of a single drive notices."""


class Nothing(Exception):
    """Never raised: who catches it catches nothing."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`take_out` changes modules of the process that it runs in, which ends with the seed."""

    name: str
    promise: str
    tilt: str
    take_out: Callable[[Any], None]


RULES: dict[str, Rule] = {}


TakeOut = Callable[[Any], None]
"""Told the world that is about to run."""


def rule(promise: str, tilt: str) -> Callable[[TakeOut], TakeOut]:
    """Register what takes a rule out. `promise` is the rule in the design's words, in short."""

    def register(take_out: TakeOut) -> TakeOut:
        name = take_out.__name__
        RULES[name] = Rule(name, promise, tilt, take_out)
        return take_out

    return register


def always(*ignored: Any) -> Any:
    """In the place of what makes a compare."""
    return ALWAYS
