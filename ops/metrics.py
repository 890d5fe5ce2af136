"""Prometheus exposition of a whole store: every process's plain counters, added up at scrape time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.domain.garbage_backlog import ENTRIES_SLOWED
from gateway.metrics import LATENCY_BOUNDS_SECONDS, Histogram, RequestCounts
from ops.metadata_headroom import OBJECT_SIZE_BYTES, objects_left
from ops.process_counts import MetadataFacts, ProcessCounts
from storage_node.port import DriveCondition, DriveReport

LIFECYCLE_OUTCOMES = (
    *("expired", "noncurrent", "markers", "uploads", "transitioned", "transitioned_noncurrent"),
    *("skipped", "unreadable"),
)
_SERVING = (DriveCondition.UP, DriveCondition.RECOVERING)


@dataclass(slots=True)
class DriveCounts:
    """What a node counted on one drive: operations, seconds and bytes by kind of operation."""

    drive: str
    operations: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class CommitCounts:
    """Group commits of one kind ("metadata", "shards"): how many, and how many members in all."""

    kind: str
    commits: int = 0
    members: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class BucketHeld:
    """What one bucket holds, as quotas count it, and its quota; None: none of that kind."""

    bucket: str
    objects: int
    size_bytes: int
    objects_max: int | None = None
    size_bytes_max: int | None = None


@dataclass(slots=True)
class StoreCounts:
    """Everything a scrape shows."""

    requests: RequestCounts
    drives: tuple[DriveReport, ...] = ()
    drive_counts: tuple[DriveCounts, ...] = ()
    commits: tuple[CommitCounts, ...] = ()
    processes: tuple[ProcessCounts, ...] = ()
    repairs_pending: int = 0
    repairs_done: int = 0
    orphan_shards: int = 0
    garbage_pending: int = 0
    lifecycle: dict[str, int] = field(default_factory=dict)
    """What the keeper's duty of that name counted, by its field."""
    scrub: dict[str, float] = field(default_factory=dict)
    """As that duty tells (`Scrub.told`)."""
    snapshot: dict[str, float] = field(default_factory=dict)
    """As that duty tells (`Snapshot.told`), and whether a rebuild waits to be confirmed. Empty while
    no keeper tells: then its gauges are left out, for an age of 0 would be a lie."""
    duties: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How each of the keeper's duties gets on (`ops.keeper.headway`), and what else it tells."""
    buckets: tuple[BucketHeld, ...] = ()
    """The largest ones, as many as the store's settings say."""
    tolerance: int = 0
    map_epoch: int = 0
    map_open_epochs: int = 0
    data_shards: int = 0
    parity_shards: int = 0
    """k and m of the scheme of new objects."""
    metadata: MetadataFacts | None = None
    """None when the metadata store did not tell."""
    metadata_reads: CommitCounts = field(default_factory=lambda: CommitCounts("reads"))
    """Reads that go to the metadata store by a call, which several may share."""
    node: str = ""
    """Whose drives these are, when one node's."""


@dataclass(slots=True)
class NodeCounts:
    """Everything that a scrape of a cluster's node shows."""

    node: str
    drives: tuple[DriveReport, ...]
    drive_counts: tuple[DriveCounts, ...]
    commits: tuple[CommitCounts, ...]
    processes: tuple[ProcessCounts, ...]


def render(counts: StoreCounts) -> bytes:
    """The text exposition format."""
    return _exposed(_families(counts))


def render_node(counts: NodeCounts) -> bytes:
    """The same for a node: of what gateways and keepers tell of the whole it tells nothing."""
    return _exposed(_node_families(counts))


def _exposed(families: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(list(families)))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(counts: StoreCounts) -> Iterator[Metric]:
    yield from _request_families(counts.requests)
    yield from _drive_families(counts.drives)
    if counts.node:
        yield _node_drives(counts.node, counts.drives)
    yield from _shard_families(counts.drive_counts)
    yield _gauge("ostraka_repairs_pending", "Shards known to be missing.", counts.repairs_pending)
    yield _counter(
        "ostraka_repairs", "Shards rebuilt since the keeper started.", counts.repairs_done
    )
    yield _gauge("ostraka_orphan_shards", "Shards no record names.", counts.orphan_shards)
    yield _gauge("ostraka_garbage_pending", "Queued garbage entries.", counts.garbage_pending)
    yield _gauge(
        "ostraka_garbage_slowed_from",
        "Queued garbage entries from which on overwrites and deletes are slowed down; from twice as"
        " many on they are refused.",
        ENTRIES_SLOWED,
    )
    lifecycle = CounterMetricFamily(
        "ostraka_lifecycle_records",
        "Records that lifecycle rules ended, moved to another storage class, skipped or could not"
        " read, since the keeper started.",
        labels=["outcome"],
    )
    for outcome in LIFECYCLE_OUTCOMES:
        lifecycle.add_metric([outcome], counts.lifecycle.get(outcome, 0))
    yield lifecycle
    moved = CounterMetricFamily(
        "ostraka_lifecycle_transitioned_bytes",
        "Bytes of the objects that lifecycle rules moved, since the keeper started.",
    )
    moved.add_metric([], counts.lifecycle.get("transitioned_bytes", 0))
    yield moved
    yield from _scrub_families(counts.scrub)
    yield from _duty_families(counts.duties)
    yield from _stored_families(counts.duties.get("repair", {}).get("stored"))
    yield from _map_families(counts)
    yield from _bucket_families(counts.buckets)
    yield from _snapshot_families(counts.snapshot)
    yield _gauge(
        "ostraka_remaining_tolerance", "Drives that may fail now without loss.", counts.tolerance
    )
    serving = sum(drive.condition in _SERVING for drive in counts.drives)
    yield _gauge(
        "ostraka_write_quorum",
        "1 while m + 1 drives take writes, else 0: writes are refused.",
        float(counts.data_shards > 0 and serving > counts.parity_shards),
    )
    scheme = GaugeMetricFamily(
        "ostraka_scheme_shards", "k and m of the scheme of new objects.", labels=["kind"]
    )
    scheme.add_metric(["data"], counts.data_shards)
    scheme.add_metric(["parity"], counts.parity_shards)
    yield scheme
    yield from _commit_families(counts.commits)
    yield from _metadata_families(counts)
    yield from _process_families(counts.processes)


def _node_families(counts: NodeCounts) -> Iterator[Metric]:
    yield _node_drives(counts.node, counts.drives)
    yield from _shard_families(counts.drive_counts)
    yield from _commit_families(counts.commits)
    yield from _process_families(counts.processes)


def _node_drives(node: str, drives: Iterable[DriveReport]) -> Metric:
    family = GaugeMetricFamily(
        "ostraka_node_drives", "Drives of a node in each state.", labels=["node", "state"]
    )
    states = [drive.condition for drive in drives]
    for condition in DriveCondition:
        family.add_metric([node, condition.value], states.count(condition))
    return family


def _metadata_families(counts: StoreCounts) -> Iterator[Metric]:
    reads = counts.metadata_reads
    yield _counter(
        "ostraka_metadata_reads",
        "Reads that were sent to the metadata store; `serve` reads its file and sends none.",
        reads.members,
    )
    yield _counter("ostraka_metadata_read_calls", "Calls that these reads shared.", reads.commits)
    yield _counter("ostraka_metadata_read_seconds", "Time in these calls.", reads.seconds)
    size = GaugeMetricFamily(
        "ostraka_metadata_size_bytes",
        "Of the metadata store: its file, and what of it holds something.",
        labels=["kind"],
    )
    quota = GaugeMetricFamily(
        "ostraka_metadata_quota_bytes",
        "What that file may grow to: etcd's quota (told by etcd 3.6), or the room on the disk.",
    )
    left = GaugeMetricFamily(
        "ostraka_metadata_objects_left",
        f"Plain objects that still fit, an estimate: {OBJECT_SIZE_BYTES} bytes each of what the file may"
        " grow to and does not use. Not told where the quota is not.",
    )
    full = GaugeMetricFamily(
        "ostraka_metadata_full", "1 while the metadata store refuses what needs room."
    )
    if counts.metadata is not None:
        size.add_metric(["file"], counts.metadata.size_bytes)
        size.add_metric(["used"], counts.metadata.in_use_bytes)
        if counts.metadata.quota_bytes:
            quota.add_metric([], counts.metadata.quota_bytes)
            left.add_metric(
                [], objects_left(counts.metadata.in_use_bytes, counts.metadata.quota_bytes)
            )
        full.add_metric([], float(counts.metadata.full))
    yield from (size, quota, left, full)


def _commit_families(commits: Iterable[CommitCounts]) -> Iterator[Metric]:
    total = CounterMetricFamily("ostraka_commits", "Group commits.", labels=["kind"])
    members = CounterMetricFamily(
        "ostraka_commit_members", "Writes in these commits.", labels=["kind"]
    )
    seconds = CounterMetricFamily(
        "ostraka_commit_seconds", "Time in these commits.", labels=["kind"]
    )
    for commit in commits:
        total.add_metric([commit.kind], commit.commits)
        members.add_metric([commit.kind], commit.members)
        seconds.add_metric([commit.kind], commit.seconds)
    yield from (total, members, seconds)


def _bucket_families(buckets: tuple[BucketHeld, ...]) -> Iterator[Metric]:
    labels = ["bucket"]
    objects = GaugeMetricFamily(
        "ostraka_bucket_objects", "Objects and versions in the bucket.", labels=labels
    )
    size = GaugeMetricFamily(
        "ostraka_bucket_size_bytes",
        "Bytes of its objects, versions and parts of unfinished uploads, as clients see them.",
        labels=labels,
    )
    objects_max = GaugeMetricFamily(
        "ostraka_bucket_quota_objects", "How many it may hold.", labels=labels
    )
    size_max = GaugeMetricFamily(
        "ostraka_bucket_quota_bytes", "How much it may hold.", labels=labels
    )
    for held in buckets:
        objects.add_metric([held.bucket], held.objects)
        size.add_metric([held.bucket], held.size_bytes)
        if held.objects_max is not None:
            objects_max.add_metric([held.bucket], held.objects_max)
        if held.size_bytes_max is not None:
            size_max.add_metric([held.bucket], held.size_bytes_max)
    yield from (objects, size, objects_max, size_max)


def _scrub_families(scrub: dict[str, float]) -> Iterator[Metric]:
    counters = (
        ("bytes", "bytes", "Bytes of shards that the scrub verified"),
        ("shards", "shards", "Shards that the scrub verified"),
        ("damaged_shards", "damaged", "Shards that the scrub found damaged or gone"),
        ("skipped_shards", "skipped", "Shards that the scrub could not read: their drive failed"),
        ("decoded_blobs", "decoded", "Blobs decoded from random shards and compared"),
        ("different_blobs", "different", "Blobs that decoded to other bytes than were stored"),
    )
    for name, field_name, meaning in counters:
        told = scrub.get(field_name, 0)
        yield _counter(f"ostraka_scrub_{name}", f"{meaning}, since the keeper started.", told)
    yield _gauge(
        "ostraka_scrub_oldest_age_seconds",
        "Since the partitions that wait longest were verified.",
        scrub.get("oldest_age_seconds", 0.0),
    )


def _duty_families(duties: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ["duty", "unit"]
    rate = GaugeMetricFamily(
        "ostraka_background_rate",
        "Units of a duty of the keeper that are done a second, smoothed over half a minute.",
        labels=labels,
    )
    left = GaugeMetricFamily(
        "ostraka_background_left", "Units left to do, where the duty knows.", labels=labels
    )
    eta = GaugeMetricFamily(
        "ostraka_background_eta_seconds",
        "Until the duty is done at its present pace; 0 when nothing is left, absent where nobody"
        " knows.",
        labels=["duty"],
    )
    for name, told in sorted(duties.items()):
        if "per_second" not in told:
            continue
        rate.add_metric([name, told["unit"]], told["per_second"])
        if told["left"] is not None:
            left.add_metric([name, told["unit"]], told["left"])
        if told["eta_seconds"] is not None:
            eta.add_metric([name], told["eta_seconds"])
    yield from (rate, left, eta)


def _stored_families(stored: Mapping[str, Any] | None) -> Iterator[Metric]:
    """As the census tells; without series while no inventory has counted, for 0 would be a lie."""
    blobs = GaugeMetricFamily(
        "ostraka_stored_blobs",
        "Blobs by the drives that each may still lose now. A blob is the body of an object or of a"
        " part, or a list of parts; copies that share one may count it again. What was written"
        " since ostraka_inventory_timestamp_seconds may be missing.",
        labels=["tolerance"],
    )
    size = GaugeMetricFamily(
        "ostraka_stored_blob_bytes",
        "Bytes in these blobs, without what coding adds.",
        labels=["tolerance"],
    )
    began = GaugeMetricFamily(
        "ostraka_inventory_timestamp_seconds",
        "When the walk that counted ostraka_stored_blobs began, in Unix time; drives that come and"
        " go since show at once all the same.",
    )
    coarse = GaugeMetricFamily(
        "ostraka_coarse_blobs",
        "Of ostraka_stored_blobs, those of which only a lower bound of the tolerance is known while"
        " drives are away: there are too many different sets of drives.",
    )
    if stored is not None:
        for tolerance, held in stored["by_tolerance"].items():
            blobs.add_metric([tolerance], held["blobs"])
            size.add_metric([tolerance], held["bytes"])
        began.add_metric([], stored["began_at_seconds"])
        coarse.add_metric([], stored["coarse"])
    yield from (blobs, size, began, coarse)


def _map_families(counts: StoreCounts) -> Iterator[Metric]:
    yield _gauge("ostraka_map_epoch", "Number of the newest cluster map.", counts.map_epoch)
    yield _gauge(
        "ostraka_map_open_epochs",
        "Earlier maps whose shards may not all have been moved yet.",
        counts.map_open_epochs,
    )
    misplaced = GaugeMetricFamily(
        "ostraka_misplaced_shards",
        "Shards that the last inventory left elsewhere than the newest map wants them.",
    )
    if (told := counts.duties.get("repair", {}).get("misplaced_shards")) is not None:
        misplaced.add_metric([], told)
    yield misplaced


def _snapshot_families(snapshot: dict[str, float]) -> Iterator[Metric]:
    gauges = (
        ("snapshot_age_seconds", "age_seconds", "Since the drives told all of the metadata."),
        (
            "snapshot_bytes",
            "bytes",
            "Bytes of the newest snapshot of the metadata, changes and all.",
        ),
        ("snapshot_keys", "keys", "Keys that its pages have copied."),
        ("snapshot_running", "running", "1 while its pages are being copied, else 0."),
        ("rebuild_unconfirmed", "unconfirmed", "1 while a rebuild waits to be confirmed, else 0."),
    )
    for name, field_name, meaning in gauges if snapshot else ():
        yield _gauge(f"ostraka_{name}", meaning, snapshot.get(field_name, 0.0))
    yield _counter(
        "ostraka_snapshot_parts",
        "Parts of snapshots written since the keeper started.",
        snapshot.get("parts", 0.0),
    )


def _request_families(requests: RequestCounts) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "ostraka_requests", "Requests by operation and result.", labels=["operation", "code"]
    )
    latency = HistogramMetricFamily(
        "ostraka_request_seconds",
        "From the first byte of a request to the last of its answer.",
        labels=["operation"],
    )
    first = HistogramMetricFamily(
        "ostraka_first_byte_seconds",
        "From the first byte of a request to the first of its answer.",
        labels=["operation"],
    )
    received = CounterMetricFamily(
        "ostraka_received_bytes", "Bytes of request bodies.", labels=["operation"]
    )
    sent = CounterMetricFamily("ostraka_sent_bytes", "Bytes of answers.", labels=["operation"])
    for name, operation in sorted(requests.operations.items()):
        for code, number in sorted(operation.codes.items()):
            total.add_metric([name, code], number)
        latency.add_metric([name], _buckets(operation.latency), operation.latency.total)
        first.add_metric([name], _buckets(operation.first_byte), operation.first_byte.total)
        received.add_metric([name], operation.received_bytes)
        sent.add_metric([name], operation.sent_bytes)
    yield from (total, latency, first, received, sent)
    yield _gauge("ostraka_requests_inflight", "Requests being served.", requests.inflight)
    yield _counter("ostraka_internal_errors", "Requests that met a bug.", requests.internal_errors)
    yield _counter(
        "ostraka_access_log_lost_lines",
        "Lines of the access log that could not be written.",
        requests.lost_log_lines,
    )
    yield _counter("ostraka_degraded_reads", "Reads that had to rebuild.", requests.degraded_reads)
    yield _counter(
        "ostraka_degraded_writes",
        "Writes that left a drive out or were stored narrower.",
        requests.degraded_writes,
    )
    yield _counter(
        "ostraka_garbage_slowed_commits",
        "Overwrites and deletes that waited because much garbage does.",
        requests.slowed_commits,
    )
    yield _counter(
        "ostraka_garbage_refused_commits",
        "Overwrites and deletes that were refused (SlowDown) because too much garbage waits.",
        requests.refused_commits,
    )


def _drive_families(drives: Iterable[DriveReport]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "ostraka_drive_state",
        "1 for the state that the drive is in, 0 for the others.",
        labels=["drive", "state"],
    )
    capacity = GaugeMetricFamily(
        "ostraka_drive_capacity_bytes", "Size of the drive.", labels=["drive"]
    )
    free = GaugeMetricFamily("ostraka_drive_free_bytes", "Space left on it.", labels=["drive"])
    shards = GaugeMetricFamily("ostraka_drive_shards", "Shards on the drive.", labels=["drive"])
    quarantined = GaugeMetricFamily(
        "ostraka_drive_quarantined_shards", "Shards set aside as damaged.", labels=["drive"]
    )
    errors = CounterMetricFamily(
        "ostraka_drive_errors", "Operations that failed on the drive.", labels=["drive"]
    )
    for drive in drives:
        for condition in DriveCondition:
            state.add_metric(
                [drive.path, condition.value], 1.0 if drive.condition is condition else 0.0
            )
        capacity.add_metric([drive.path], drive.capacity_bytes)
        free.add_metric([drive.path], drive.free_bytes)
        shards.add_metric([drive.path], drive.shards)
        quarantined.add_metric([drive.path], drive.quarantined)
        errors.add_metric([drive.path], drive.errors)
    yield from (state, capacity, free, shards, quarantined, errors)


def _shard_families(counts: Iterable[DriveCounts]) -> Iterator[Metric]:
    labels = ["drive", "operation"]
    operations = CounterMetricFamily(
        "ostraka_shard_operations", "Operations on shards.", labels=labels
    )
    seconds = CounterMetricFamily("ostraka_shard_operation_seconds", "Time in them.", labels=labels)
    volume = CounterMetricFamily("ostraka_shard_bytes", "Bytes of shards.", labels=labels)
    for drive_counts in counts:
        for kind, number in sorted(drive_counts.operations.items()):
            operations.add_metric([drive_counts.drive, kind], number)
            seconds.add_metric([drive_counts.drive, kind], drive_counts.seconds.get(kind, 0.0))
            volume.add_metric([drive_counts.drive, kind], drive_counts.bytes.get(kind, 0))
    yield from (operations, seconds, volume)


def _process_families(processes: tuple[ProcessCounts, ...]) -> Iterator[Metric]:
    labels = ["process"]
    lag = GaugeMetricFamily(
        "ostraka_event_loop_lag_seconds",
        "How late a timer ran at worst in the last one to two minutes.",
        labels=labels,
    )
    memory = GaugeMetricFamily(
        "ostraka_process_memory_bytes",
        "Resident and proportional set size.",
        labels=[*labels, "kind"],
    )
    cpu = CounterMetricFamily(
        "ostraka_process_cpu_seconds", "CPU time, user and system.", labels=labels
    )
    files = GaugeMetricFamily("ostraka_process_open_files", "Open descriptors.", labels=labels)
    for process in processes:
        lag.add_metric([process.name], process.loop_lag_seconds)
        memory.add_metric([process.name, "resident"], process.resident_bytes)
        if process.proportional_bytes:
            memory.add_metric([process.name, "proportional"], process.proportional_bytes)
        cpu.add_metric([process.name], process.cpu_seconds)
        files.add_metric([process.name], process.open_files)
    yield from (lag, memory, cpu, files)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    running, buckets = 0, []
    for bound, count in zip((*LATENCY_BOUNDS_SECONDS, None), histogram.counts, strict=True):
        running += count
        buckets.append(("+Inf" if bound is None else str(bound), float(running)))
    return buckets


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    family = CounterMetricFamily(name, text)
    family.add_metric([], value)
    return family
