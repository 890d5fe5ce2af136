"""Rules taken out of the code on purpose, one at a time: some seed must notice each of them."""

from tests.sim.broken import drives, metadata, quotas, shards, uploads
from tests.sim.broken.registry import DRIVE, RULES, Rule

__all__ = ["DRIVE", "RULES", "Rule", "drives", "metadata", "quotas", "shards", "uploads"]
