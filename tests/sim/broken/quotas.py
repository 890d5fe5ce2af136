"""Rules of quotas, each taken out."""

# What is taken out is a name inside a module: mypy cannot know that on purpose.
# mypy: disable-error-code="attr-defined,assignment,misc,method-assign,arg-type"

from typing import Any

from gateway.domain.quotas import NOTHING, Amount
from gateway.metadata.quotas import Quotas
from ops.keeper.accounting import Accounting
from tests.sim.broken.registry import rule
from tests.sim.world import World


@rule("a write that does not fit into a quota is refused", "fair")
def quotas_are_not_checked(world: World) -> None:
    """Whatever is held, there is room."""
    Quotas.demand = lambda self, entry, growth: None


@rule("a process never exceeds a quota by its own writes", "fair")
def own_writes_do_not_count(world: World) -> None:
    """Only what the keeper has published counts."""

    def settle(
        self: Any, bucket_id: bytes, owner: str, under_way: Amount, done: Any, revision: int
    ) -> None:
        self._shift(bucket_id, owner, NOTHING.minus(under_way))

    Quotas._settle = settle


@rule("what buckets hold is published to all who write", "fair")
def usage_is_not_published(world: World) -> None:
    """The keeper keeps it to itself."""

    async def publish(self: Any) -> None:
        return None

    Accounting._publish = publish
