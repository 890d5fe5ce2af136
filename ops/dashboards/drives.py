"""Drives: state, space, work and latency of each, and the commits that groups of writes share."""

from ops.dashboards.model import Choice, Dashboard, Kind, Panel, Query, Row

_CHOSEN = '{job=~"$job",drive=~"$drive"}'


def _gauge(metric: str) -> Query:
    return Query(f"max by (drive) ({metric}{_CHOSEN})", "{{drive}}")


def _rate(metric: str, by: str, legend: str) -> Query:
    return Query(f"sum by ({by}) (rate({metric}{_CHOSEN}[$__rate_interval]))", legend)


def _average(by: str, legend: str, chosen: str = _CHOSEN) -> Query:
    seconds = f"rate(ostraka_shard_operation_seconds_total{chosen}[$__rate_interval])"
    number = f"rate(ostraka_shard_operations_total{chosen}[$__rate_interval])"
    return Query(f"sum by ({by}) ({seconds}) / (sum by ({by}) ({number}) > 0)", legend)


def _commits(metric: str, legend: str = "{{kind}}") -> Query:
    return Query(f'sum by (kind) (rate({metric}{{job=~"$job"}}[$__rate_interval]))', legend)


DRIVES = Dashboard(
    name="drives",
    title="Drives",
    meaning="One drive or all: state, space, operations, latency, errors.",
    choices=(Choice("drive", "ostraka_drive_capacity_bytes", "drive"),),
    rows=(
        Row(
            "State and space",
            (
                Panel(
                    title="Drives that do not serve",
                    meaning="Failed, missing or full: 1 for each.",
                    queries=(
                        Query(
                            "max by (drive, state) (ostraka_drive_state"
                            '{job=~"$job",drive=~"$drive",state!~"up|recovering"})',
                            "{{drive}} {{state}}",
                        ),
                    ),
                    most=1,
                ),
                Panel(
                    title="Space used",
                    meaning="Share of each drive in use.",
                    queries=(
                        Query(
                            f"1 - max by (drive) (ostraka_drive_free_bytes{_CHOSEN}"
                            f" / ostraka_drive_capacity_bytes{_CHOSEN})",
                            "{{drive}}",
                        ),
                    ),
                    unit="percentunit",
                    kind=Kind.BARS,
                    most=1,
                ),
                Panel(
                    title="Shards",
                    meaning="Present on each drive.",
                    queries=(_gauge("ostraka_drive_shards"),),
                ),
                Panel(
                    title="Drives of each node",
                    meaning="By state, as each node tells of itself.",
                    queries=(
                        Query(
                            'max by (node, state) (ostraka_node_drives{job=~"$job"})',
                            "{{node}} {{state}}",
                        ),
                    ),
                    width=24,
                ),
                Panel(
                    title="Errors",
                    meaning="Failed operations a second.",
                    queries=(_rate("ostraka_drive_errors_total", "drive", "{{drive}}"),),
                    width=12,
                ),
                Panel(
                    title="Damaged shards set aside",
                    meaning="Shards whose checksum was wrong; repair replaces them.",
                    queries=(_gauge("ostraka_drive_quarantined_shards"),),
                    width=12,
                ),
            ),
        ),
        Row(
            "Work",
            (
                Panel(
                    title="Operations by drive",
                    meaning="A second, of all kinds.",
                    queries=(_rate("ostraka_shard_operations_total", "drive", "{{drive}}"),),
                    unit="ops",
                ),
                Panel(
                    title="Operations by kind",
                    meaning="A second, on the chosen drives.",
                    queries=(
                        _rate("ostraka_shard_operations_total", "operation", "{{operation}}"),
                    ),
                    unit="ops",
                ),
                Panel(
                    title="Bytes by kind",
                    meaning="Of shards, a second.",
                    queries=(_rate("ostraka_shard_bytes_total", "operation", "{{operation}}"),),
                    unit="Bps",
                ),
            ),
        ),
        Row(
            "Latency",
            (
                Panel(
                    title="Mean time of an operation, by drive",
                    meaning="A drive that stands out is on its way to fail.",
                    queries=(_average("drive", "{{drive}}"),),
                    unit="s",
                ),
                Panel(
                    title="Mean time of an operation, by kind",
                    meaning="Flushes are what writes wait for.",
                    queries=(_average("operation", "{{operation}}"),),
                    unit="s",
                ),
                Panel(
                    title="Mean time of a flush, by drive",
                    meaning="A flush makes a group of writes durable.",
                    queries=(
                        _average(
                            "drive",
                            "{{drive}}",
                            '{job=~"$job",drive=~"$drive",operation="flush"}',
                        ),
                    ),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Group commits",
            (
                Panel(
                    title="Commits",
                    meaning="Groups a second, of shards and of metadata.",
                    queries=(_commits("ostraka_commits_total"),),
                    unit="ops",
                ),
                Panel(
                    title="Writes in a commit",
                    meaning="How well writes share a flush, on average.",
                    queries=(
                        Query(
                            "sum by (kind) (rate(ostraka_commit_members_total"
                            '{job=~"$job"}[$__rate_interval])) / (sum by (kind)'
                            ' (rate(ostraka_commits_total{job=~"$job"}[$__rate_interval])) > 0)',
                            "{{kind}}",
                        ),
                    ),
                ),
                Panel(
                    title="Mean time of a commit",
                    meaning="From the start of a group to its flush's end.",
                    queries=(
                        Query(
                            "sum by (kind) (rate(ostraka_commit_seconds_total"
                            '{job=~"$job"}[$__rate_interval])) / (sum by (kind)'
                            ' (rate(ostraka_commits_total{job=~"$job"}[$__rate_interval])) > 0)',
                            "{{kind}}",
                        ),
                    ),
                    unit="s",
                ),
            ),
        ),
    ),
)
