"""The reference page of metrics, made from what the exposition code yields."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import RequestCounts
from ops.metrics import BucketHeld, CommitCounts, DriveCounts, StoreCounts, render
from ops.process_counts import MetadataFacts, ProcessCounts
from placement.ids import DriveId
from storage_node.port import DriveCondition, DriveReport

LABELS = {
    "operation": "S3 operation as AWS names it (`PutObject`), `unrouted` for what is none,"
    " `Website` on the website port;"
    " of shard metrics `put`, `get`, `commit`, `delete`, `flush`",
    "code": "HTTP status of answers that are no error, else the S3 error code (`NoSuchKey`)",
    "duty": "of the keeper: `repair`, `moves`, `garbage`, `re-encoding`, `sweep`, `scrub`, `snapshot`,"
    " `lifecycle`",
    "unit": "what a duty counts: `objects`, `bytes`, `entries`, `shards`, `parts`, `records`",
    "bucket": "name of a bucket; only of the largest ones, as many as `ostraka admin settings set"
    " --bucket-metrics N` says",
    "drive": "path of the drive; in a cluster the node's name and the path",
    "state": "`up`, `full`, `failed`, `missing`, `recovering`",
    "kind": "of commits `metadata` or `shards`; of memory `resident` or `proportional`;"
    " of shards `data` or `parity`; of metadata's size `file` or `used`",
    "node": "name of a storage node, HOST:PORT; `local` on a single machine",
    "outcome": "`expired` (current objects), `noncurrent` (versions), `markers` (delete markers alone),"
    " `uploads` (given up), `skipped` (changed meanwhile), `unreadable` (damaged records, passed over)",
    "process": "`storage`, `keeper`, `node`, `worker-N`, …",
    "tolerance": "drives that may still be lost: `lost` (cannot be read now), `0`, `1`, … to m",
    "le": "upper bound of a histogram's bucket",
}
"""Every label there is: a closed set, as are the values of each."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as Prometheus shows it. `samples` are the names of its series."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...]
    samples: tuple[str, ...]


def families() -> Iterator[Family]:
    """Every metric, read from an exposition that shows each of them."""
    for family in text_string_to_metric_families(render(_specimen()).decode()):
        labels = {name: None for sample in family.samples for name in sample.labels}
        yield Family(
            name=family.name + ("_total" if family.type == "counter" else ""),
            kind=family.type,
            meaning=family.documentation,
            labels=tuple(labels),
            samples=tuple(sorted({sample.name for sample in family.samples})),
        )


def page() -> str:
    """`ops/docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "What `/metrics` on the admin port shows. Every process of a store is counted in one"
        " answer, and what a process had counted is kept when another takes its place, so that"
        " counters never fall. In a cluster each gateway counts its own requests and processes:"
        " add them up. Gauges of the whole store (drives, repairs, tolerance, quorum) are told"
        " alike by every gateway and keeper: take `max` or `min`, never the sum. What drives did is"
        " told by each node of a cluster on its own admin port: `ostraka_node_drives`,"
        " the operations on shards, the commits of `shards` and its process.",
        "",
        "This page is generated from the code by `python -m ops.reference`.",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    for family in families():
        labels = ", ".join(f"`{label}`" for label in family.labels if label != "le")
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.meaning} |")
    lines += ["", "## Labels", "", "| label | values |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in LABELS.items()]
    return "\n".join(lines) + "\n"


_PROCESS = ProcessCounts(
    name="storage",
    cpu_seconds=1.0,
    resident_bytes=1,
    proportional_bytes=1,
    open_files=1,
    loop_lag_seconds=0.0,
)


def _specimen() -> StoreCounts:
    requests = RequestCounts()
    operation = requests.operation("PutObject")
    operation.codes["200"] = 1
    operation.latency.observe(0.001)
    operation.first_byte.observe(0.001)
    return StoreCounts(
        requests=requests,
        drives=(DriveReport(DriveId(bytes(16)), "/d", DriveCondition.UP, 2, 1, 1, 0, 0),),
        drive_counts=(DriveCounts("/d", {"put": 1}, {"put": 1}, {"put": 1}),),
        commits=(CommitCounts("metadata", 1, 1, 0.1),),
        processes=(_PROCESS,),
        buckets=(BucketHeld("b", 1, 1, 1, 1),),
        metadata=MetadataFacts(2, 1, 3, full=False),
        node="local",
        snapshot={"age_seconds": 1.0},
        duties={
            "repair": {
                "unit": "objects",
                "per_second": 1.0,
                "left": 1,
                "eta_seconds": 1.0,
                "misplaced_shards": 0,
                "stored": {
                    "began_at_seconds": 1.0,
                    "coarse": 0,
                    "by_tolerance": {"lost": {"blobs": 0, "bytes": 0}},
                },
            },
        },
    )
