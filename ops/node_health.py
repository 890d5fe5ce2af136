"""What `ostraka node` tells on its admin port: that it lives, whether it serves, what its drives did."""

import dataclasses

import msgspec

from ops.collected import Growing
from ops.drive_counts import drive_counts, shard_commits
from ops.metrics import NodeCounts, render_node
from ops.process_counts import ProcessWatch
from storage_node.node import Node
from storage_node.port import DriveCondition, DriveReport

_SERVING = (DriveCondition.UP, DriveCondition.RECOVERING, DriveCondition.FULL)


class NodeHealth:
    """Answers from the first moment on; `node` and `name` come when the drives are open,
    `registered` when the cluster knows of them."""

    def __init__(self, watch: ProcessWatch) -> None:
        self.node: Node | None = None
        self.name = ""
        self.registered = False
        self._watch = watch
        self._grown = Growing()

    async def ready(self) -> bool:
        """Registered, and at least one drive answers reads."""
        if self.node is None or not self.registered:
            return False
        return any(report.condition in _SERVING for report in self.node.reports())

    async def metrics(self) -> bytes:
        """The exposition. Drives are named as gateways name them: by node and path."""
        counts = NodeCounts(self.name, (), (), (), (self._watch.counts(),))
        if self.node is not None and self.name:
            reports = tuple(self._named(report) for report in self.node.reports())
            stats = self.node.stats()
            counts = dataclasses.replace(
                counts,
                drives=reports,
                drive_counts=tuple(drive_counts(reports, stats, self._grown)),
                commits=(shard_commits(stats, self._grown),),
            )
        return render_node(counts)

    def _named(self, report: DriveReport) -> DriveReport:
        return msgspec.structs.replace(report, path=f"{self.name}:{report.path}")
