"""Scripted interleavings, each of which needs a rule that a seed would seldom miss."""

from tests.sim.scenarios import (
    buckets,
    groups,
    identities,
    moves,
    outcomes,
    quotas,
    reads,
    uploads,
    writes,
)
from tests.sim.scenarios.scene import SCENARIOS, Scenario, Scene

__all__ = [
    "SCENARIOS",
    "Scenario",
    "Scene",
    "buckets",
    "groups",
    "identities",
    "moves",
    "outcomes",
    "quotas",
    "reads",
    "uploads",
    "writes",
]
