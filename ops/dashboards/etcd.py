"""etcd as Ostraka depends on it: headroom, leader, latency. Of a cluster; `serve` needs none."""

from ops.dashboards.model import Dashboard, Kind, Panel, Query, Row, Threshold
from ops.metadata_headroom import OBJECT_SIZE_BYTES

_OURS = '{job=~"$job"}'


def _quantile(metric: str) -> Query:
    rate = f"rate({metric}_bucket{_OURS}[$__rate_interval])"
    return Query(f"histogram_quantile(0.99, sum by (instance, le) ({rate}))", "{{instance}}")


def _rate(metric: str, legend: str = "") -> Query:
    return Query(f"sum by (job) (rate({metric}{_OURS}[$__rate_interval]))", legend)


ETCD = Dashboard(
    name="etcd",
    title="etcd",
    meaning="The metadata store of a cluster: headroom, leader, latency.",
    rows=(
        Row(
            "Metadata as Ostraka sees it",
            (
                Panel(
                    title="Refuses writes",
                    meaning="1 while the metadata store is full: only deletes get through.",
                    queries=(Query(f"max by (job) (ostraka_metadata_full{_OURS})"),),
                    kind=Kind.NUMBER,
                    width=6,
                    thresholds=(Threshold(None, "green"), Threshold(1, "red")),
                ),
                Panel(
                    title="Size of the metadata",
                    meaning="Its file, what of it is in use, and what it may grow to: etcd's quota,"
                    " or the disk's room.",
                    queries=(
                        Query(
                            f"max by (job, kind) (ostraka_metadata_size_bytes{_OURS})", "{{kind}}"
                        ),
                        Query(
                            f"min by (job) (ostraka_metadata_quota_bytes{_OURS}) or min by (job)"
                            f" (etcd_server_quota_backend_bytes{_OURS})",
                            "may grow to",
                        ),
                    ),
                    unit="bytes",
                    width=6,
                ),
                Panel(
                    title="Transactions and reads",
                    meaning="Sent to the metadata store, a second, by all processes. `serve` reads"
                    " its file and sends no reads.",
                    queries=(
                        Query(
                            "sum by (job) (rate(ostraka_commit_members_total"
                            '{job=~"$job",kind="metadata"}[$__rate_interval]))',
                            "transactions",
                        ),
                        _rate("ostraka_metadata_reads_total", "reads"),
                    ),
                    unit="ops",
                    width=6,
                ),
                Panel(
                    title="Mean time of a call",
                    meaning="From sending a shared call to its answer.",
                    queries=(
                        Query(
                            "sum by (job) (rate(ostraka_commit_seconds_total"
                            '{job=~"$job",kind="metadata"}[$__rate_interval])) / clamp_min('
                            'sum by (job) (rate(ostraka_commits_total{job=~"$job",kind="metadata"}'
                            "[$__rate_interval])), 0.001)",
                            "writing",
                        ),
                        Query(
                            f"{_rate('ostraka_metadata_read_seconds_total').expression} / clamp_min("
                            f"{_rate('ostraka_metadata_read_calls_total').expression}, 0.001)",
                            "reading",
                        ),
                    ),
                    unit="s",
                    width=6,
                ),
            ),
        ),
        Row(
            "etcd",
            (
                Panel(
                    title="Quota used",
                    meaning="At 1 etcd refuses writes until it is compacted and defragmented.",
                    queries=(
                        Query(
                            f"max by (job) (etcd_mvcc_db_total_size_in_bytes{_OURS})"
                            f" / min by (job) (etcd_server_quota_backend_bytes{_OURS})"
                        ),
                    ),
                    unit="percentunit",
                    kind=Kind.NUMBER,
                    width=4,
                    most=1,
                    thresholds=(
                        Threshold(None, "green"),
                        Threshold(0.7, "orange"),
                        Threshold(0.8, "red"),
                    ),
                ),
                Panel(
                    title="Objects that still fit",
                    meaning=f"An estimate, at {OBJECT_SIZE_BYTES} bytes of metadata each: plain objects"
                    " with keys of up to some 140 bytes.",
                    queries=(
                        Query(
                            f"min by (job) (ostraka_metadata_objects_left{_OURS}) or floor((min by (job)"
                            f" (etcd_server_quota_backend_bytes{_OURS}) - max by (job)"
                            f" (etcd_mvcc_db_total_size_in_use_in_bytes{_OURS}))"
                            f" / {OBJECT_SIZE_BYTES})"
                        ),
                    ),
                    unit="short",
                    kind=Kind.NUMBER,
                    width=4,
                ),
                Panel(
                    title="Members with a leader",
                    meaning="All of them, when all is well.",
                    queries=(Query(f"sum by (job) (etcd_server_has_leader{_OURS})"),),
                    kind=Kind.NUMBER,
                    width=4,
                ),
                Panel(
                    title="Size of the database",
                    meaning="On disk, and in use: defragmentation frees the difference.",
                    queries=(
                        Query(
                            f"max by (instance) (etcd_mvcc_db_total_size_in_bytes{_OURS})",
                            "{{instance}} on disk",
                        ),
                        Query(
                            f"max by (instance) (etcd_mvcc_db_total_size_in_use_in_bytes{_OURS})",
                            "{{instance}} in use",
                        ),
                    ),
                    unit="bytes",
                    width=12,
                ),
                Panel(
                    title="p99 of a flush of the log",
                    meaning="Every commit waits for it; above 10 ms the disk is too slow.",
                    queries=(_quantile("etcd_disk_wal_fsync_duration_seconds"),),
                    unit="s",
                ),
                Panel(
                    title="p99 of a backend commit",
                    meaning="Above 25 ms the disk is too slow.",
                    queries=(_quantile("etcd_disk_backend_commit_duration_seconds"),),
                    unit="s",
                ),
                Panel(
                    title="Changes of leader",
                    meaning="An hour; each one stops writes for a second or two.",
                    queries=(
                        Query(
                            "max by (instance) (increase("
                            f"etcd_server_leader_changes_seen_total{_OURS}[1h]))",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    title="Keys",
                    meaning="In the store, all of Ostraka's records.",
                    queries=(
                        Query(
                            f"max by (job) (etcd_debugging_mvcc_keys_total{_OURS})",
                            "{{job}}",
                        ),
                    ),
                ),
                Panel(
                    title="Proposals",
                    meaning="Applied, and failed, a second.",
                    queries=(
                        Query(
                            "max by (job) (rate(etcd_server_proposals_applied_total"
                            f"{_OURS}[$__rate_interval]))",
                            "applied",
                        ),
                        Query(
                            "sum by (job) (rate(etcd_server_proposals_failed_total"
                            f"{_OURS}[$__rate_interval]))",
                            "failed",
                        ),
                    ),
                    unit="ops",
                ),
            ),
        ),
    ),
)
