"""The first page: may data be lost, is there room, are clients served, what is being repaired."""

from ops.dashboards.model import Dashboard, Kind, Panel, Query, Row, Threshold

RED_AT_ZERO = (Threshold(None, "red"), Threshold(1, "orange"), Threshold(2, "green"))
GREEN_AT_ZERO = (Threshold(None, "green"), Threshold(1, "orange"))


def _scrubbed(what: str, legend: str) -> Query:
    metric = f"ostraka_scrub_{what}_total"
    return Query(f'max by (job) (rate({metric}{{job=~"$job"}}[$__rate_interval]))', legend)


def _found(what: str, legend: str) -> Query:
    return Query(f'max by (job) (ostraka_scrub_{what}_total{{job=~"$job"}})', legend)


def _by_tolerance(title: str, meaning: str, metric: str, unit: str = "short") -> Panel:
    query = Query(f'max by (job, tolerance) ({metric}{{job=~"$job"}})', "{{tolerance}}")
    return Panel(
        title=title,
        meaning=meaning,
        queries=(query,),
        unit=unit,
        kind=Kind.NUMBER,
        width=12,
        height=5,
    )


def _told(metric: str, legend: str) -> Query:
    return Query(f'max by (job) ({metric}{{job=~"$job"}})', legend)


HEALTH = Dashboard(
    name="health",
    title="Health",
    meaning="What an operator looks at first: tolerance, room, service, repair.",
    rows=(
        Row(
            "May data be lost?",
            (
                _by_tolerance(
                    "Blobs by remaining tolerance",
                    "How many blobs (bodies of objects and parts) may still lose how many drives; all"
                    " at m when all is well. Lost ones cannot be read now: they are back with"
                    " the drives.",
                    "ostraka_stored_blobs",
                ),
                _by_tolerance(
                    "Bytes by remaining tolerance",
                    "Bytes in these blobs, without what coding adds.",
                    "ostraka_stored_blob_bytes",
                    "bytes",
                ),
                Panel(
                    title="Drives that may fail now",
                    meaning="Remaining tolerance of the worst object: how many more drives may be"
                    " lost without losing data. m when all is well.",
                    queries=(Query('min by (job) (ostraka_remaining_tolerance{job=~"$job"})'),),
                    kind=Kind.NUMBER,
                    width=6,
                    height=5,
                    thresholds=RED_AT_ZERO,
                ),
                Panel(
                    title="Tolerance by design",
                    meaning="m of the scheme of new objects.",
                    queries=(
                        Query('max by (job) (ostraka_scheme_shards{job=~"$job",kind="parity"})'),
                    ),
                    kind=Kind.NUMBER,
                    width=6,
                    height=5,
                ),
                Panel(
                    title="Writes are taken",
                    meaning="1 while at least m + 1 drives take writes.",
                    queries=(Query('max by (job) (ostraka_write_quorum{job=~"$job"})'),),
                    kind=Kind.NUMBER,
                    width=6,
                    height=5,
                    thresholds=(Threshold(None, "red"), Threshold(1, "green")),
                ),
                Panel(
                    title="Shards to repair",
                    meaning="Shards known to be missing or damaged. 1 also while the storage"
                    " process cannot be asked.",
                    queries=(Query('max by (job) (ostraka_repairs_pending{job=~"$job"})'),),
                    kind=Kind.NUMBER,
                    width=6,
                    height=5,
                    thresholds=GREEN_AT_ZERO,
                ),
                Panel(
                    title="Remaining tolerance",
                    meaning="As above, over time.",
                    queries=(
                        Query('min by (job) (ostraka_remaining_tolerance{job=~"$job"})', "now"),
                        Query(
                            'max by (job) (ostraka_scheme_shards{job=~"$job",kind="parity"})',
                            "by design",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    title="Drives by state",
                    meaning="Drives of the store in each state.",
                    queries=(
                        Query(
                            "sum by (job, state) (max by (job, drive, state)"
                            ' (ostraka_drive_state{job=~"$job"}))',
                            "{{state}}",
                        ),
                    ),
                    width=12,
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Is there room?",
            (
                Panel(
                    title="Space used",
                    meaning="Share of the drives' space in use, all drives together.",
                    queries=(
                        Query(
                            "1 - sum by (job) (max by (job, drive)"
                            ' (ostraka_drive_free_bytes{job=~"$job"})) / sum by (job)'
                            ' (max by (job, drive) (ostraka_drive_capacity_bytes{job=~"$job"}))'
                        ),
                    ),
                    unit="percentunit",
                    kind=Kind.NUMBER,
                    width=6,
                    most=1,
                    thresholds=(
                        Threshold(None, "green"),
                        Threshold(0.75, "orange"),
                        Threshold(0.85, "red"),
                    ),
                ),
                Panel(
                    title="Space of all drives",
                    meaning="Capacity and what is free, coding overhead included.",
                    queries=(
                        Query(
                            "sum by (job) (max by (job, drive)"
                            ' (ostraka_drive_capacity_bytes{job=~"$job"}))',
                            "capacity",
                        ),
                        Query(
                            "sum by (job) (max by (job, drive)"
                            ' (ostraka_drive_free_bytes{job=~"$job"}))',
                            "free",
                        ),
                    ),
                    unit="bytes",
                    width=9,
                ),
                Panel(
                    title="Fullest drives",
                    meaning="The five drives with the least free share.",
                    queries=(
                        Query(
                            'topk(5, 1 - min by (job, drive) (ostraka_drive_free_bytes{job=~"$job"}'
                            ' / ostraka_drive_capacity_bytes{job=~"$job"}))',
                            "{{drive}}",
                        ),
                    ),
                    unit="percentunit",
                    kind=Kind.BARS,
                    width=9,
                    most=1,
                ),
            ),
        ),
        Row(
            "Are clients served?",
            (
                Panel(
                    title="Requests",
                    meaning="All requests a second.",
                    queries=(
                        Query(
                            "sum by (job) (rate(ostraka_requests_total"
                            '{job=~"$job"}[$__rate_interval]))'
                        ),
                    ),
                    unit="reqps",
                ),
                Panel(
                    title="Share of requests that fail by our fault",
                    meaning="InternalError, ServiceUnavailable, SlowDown and other 5xx answers.",
                    queries=(
                        Query(
                            "sum by (job) (rate(ostraka_requests_total"
                            '{job=~"$job",code=~"InternalError|ServiceUnavailable|SlowDown|5.."}'
                            "[$__rate_interval]) or 0 * rate(ostraka_requests_total"
                            '{job=~"$job"}[$__rate_interval])) / sum by (job)'
                            ' (rate(ostraka_requests_total{job=~"$job"}[$__rate_interval]))'
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    title="Bytes in and out",
                    meaning="Bodies of requests and answers.",
                    queries=(
                        Query(
                            "sum by (job) (rate(ostraka_received_bytes_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "in",
                        ),
                        Query(
                            "sum by (job) (rate(ostraka_sent_bytes_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "out",
                        ),
                    ),
                    unit="Bps",
                ),
            ),
        ),
        Row(
            "Work in the background",
            (
                Panel(
                    title="Repair",
                    meaning="Shards that wait for repair, and shards rebuilt a second.",
                    queries=(
                        Query(
                            'max by (job) (ostraka_repairs_pending{job=~"$job"})', "to be repaired"
                        ),
                        Query(
                            "max by (job) (rate(ostraka_repairs_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "rebuilt a second",
                        ),
                    ),
                ),
                Panel(
                    title="Garbage and orphans",
                    meaning="Deleted or replaced blobs whose space is not freed yet, and shards"
                    " that no record names (they are swept after a grace time).",
                    queries=(
                        Query('max by (job) (ostraka_garbage_pending{job=~"$job"})', "garbage"),
                        Query('max by (job) (ostraka_orphan_shards{job=~"$job"})', "orphan shards"),
                    ),
                ),
                Panel(
                    title="Garbage against its bound",
                    meaning="At 100 % overwrites and deletes begin to be slowed down, at 200 % they"
                    " are refused.",
                    queries=(
                        Query(
                            'max by (job) (ostraka_garbage_pending{job=~"$job"})'
                            ' / max by (job) (ostraka_garbage_slowed_from{job=~"$job"})',
                            "waiting",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    title="Writes held up for garbage",
                    meaning="Overwrites and deletes a second that waited, or were refused, because"
                    " too much garbage waits to be collected.",
                    queries=(
                        Query(
                            "sum by (job) (rate(ostraka_garbage_slowed_commits_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "slowed down",
                        ),
                        Query(
                            "sum by (job) (rate(ostraka_garbage_refused_commits_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "refused",
                        ),
                    ),
                ),
                Panel(
                    title="Map epoch",
                    meaning="Number of the newest cluster map: it grows with every change of drives"
                    " or schemes.",
                    queries=(_told("ostraka_map_epoch", "epoch"),),
                ),
                Panel(
                    title="Moves to be done",
                    meaning="Earlier maps that are still open, and shards that lie elsewhere than"
                    " the newest wants them.",
                    queries=(
                        _told("ostraka_map_open_epochs", "open epochs"),
                        _told("ostraka_misplaced_shards", "misplaced shards"),
                    ),
                ),
                Panel(
                    title="Age of the count by tolerance",
                    meaning="What was written since may not be counted yet.",
                    queries=(
                        Query(
                            "time() - max by (job)"
                            ' (ostraka_inventory_timestamp_seconds{job=~"$job"})',
                            "age",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Blobs whose tolerance is a lower bound",
                    meaning="Those beyond the sets of drives that the keeper counts apart.",
                    queries=(_told("ostraka_coarse_blobs", "blobs"),),
                ),
                Panel(
                    title="Pace of background duties",
                    meaning="What each duty of the keeper gets done a second, in its own unit.",
                    queries=(
                        Query(
                            'max by (job, duty, unit) (ostraka_background_rate{job=~"$job"})',
                            "{{duty}}, {{unit}}",
                        ),
                    ),
                ),
                Panel(
                    title="Left of background duties",
                    meaning="What each duty of the keeper has left to do, in its own unit, where it"
                    " knows.",
                    queries=(
                        Query(
                            'max by (job, duty, unit) (ostraka_background_left{job=~"$job"})',
                            "{{duty}}, {{unit}}",
                        ),
                    ),
                ),
                Panel(
                    title="Background duties are done in",
                    meaning="Time until a duty is done at its present pace; 0 when nothing is left.",
                    queries=(
                        Query(
                            'max by (job, duty) (ostraka_background_eta_seconds{job=~"$job"})',
                            "{{duty}}",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Scrub",
                    meaning="Shards that the scrub verified and blobs that it decoded, a second.",
                    queries=(
                        _scrubbed("shards", "shards"),
                        _scrubbed("decoded_blobs", "decoded blobs"),
                    ),
                ),
                Panel(
                    title="Bytes verified by the scrub",
                    meaning="A second. A pass has a set time, so the more is stored the faster.",
                    queries=(_scrubbed("bytes", "bytes"),),
                    unit="Bps",
                ),
                Panel(
                    title="What the scrub found",
                    meaning="Damaged shards (repaired at once), shards on drives that failed meanwhile,"
                    " and blobs that decode to other bytes than were stored (never).",
                    queries=(
                        _found("damaged_shards", "damaged"),
                        _found("skipped_shards", "not read"),
                        _found("different_blobs", "different blobs"),
                    ),
                ),
                Panel(
                    title="Oldest verified partitions",
                    meaning="Age of the check that is longest ago; a pass lasts 14 days unless told"
                    " otherwise.",
                    queries=(
                        Query(
                            'max by (job) (ostraka_scrub_oldest_age_seconds{job=~"$job"})', "oldest"
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Age of the metadata on the drives",
                    meaning="What a rebuild from the drives would not know of: a snapshot and the"
                    " changes since are written by the keeper.",
                    queries=(
                        Query('max by (job) (ostraka_snapshot_age_seconds{job=~"$job"})', "age"),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Bytes of the snapshot",
                    meaning="Of the newest copy of the metadata with the changes since; they fall when"
                    " a new one begins.",
                    queries=(Query('max by (job) (ostraka_snapshot_bytes{job=~"$job"})', "bytes"),),
                    unit="bytes",
                ),
                Panel(
                    title="Snapshot under way",
                    meaning="Whether pages are being copied, keys copied so far, parts written a"
                    " second; and whether a rebuild waits for an operator's word.",
                    queries=(
                        Query('max by (job) (ostraka_snapshot_running{job=~"$job"})', "running"),
                        Query('max by (job) (ostraka_snapshot_keys{job=~"$job"})', "keys"),
                        Query(
                            "max by (job) (rate(ostraka_snapshot_parts_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "parts a second",
                        ),
                        Query(
                            'max by (job) (ostraka_rebuild_unconfirmed{job=~"$job"})',
                            "rebuild to confirm",
                        ),
                    ),
                ),
                Panel(
                    title="Lifecycle",
                    meaning="Objects, versions, markers and uploads that the buckets' rules ended, and"
                    " what they moved to other storage classes, a second; unreadable ones are damaged"
                    " records.",
                    queries=(
                        Query(
                            "max by (job, outcome) (rate(ostraka_lifecycle_records_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "{{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    title="Bytes moved by lifecycle rules",
                    meaning="To other storage classes, as stored, a second.",
                    queries=(
                        Query(
                            "max by (job) (rate(ostraka_lifecycle_transitioned_bytes_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "{{job}}",
                        ),
                    ),
                    unit="Bps",
                ),
                Panel(
                    title="Degraded reads and writes",
                    meaning="Reads that had to rebuild data, and writes that left a drive out or"
                    " were stored narrower, a second.",
                    queries=(
                        Query(
                            "sum by (job) (rate(ostraka_degraded_reads_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "reads",
                        ),
                        Query(
                            "sum by (job) (rate(ostraka_degraded_writes_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "writes",
                        ),
                    ),
                    unit="reqps",
                ),
            ),
        ),
    ),
)
