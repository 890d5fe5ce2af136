"""What buckets hold, how fast they grow, and how near they are to their quotas."""

from ops.dashboards.model import Choice, Dashboard, Kind, Panel, Query, Row

_CHOSEN = '{job=~"$job",bucket=~"$bucket"}'


def _told(metric: str) -> str:
    """Every gateway and keeper tells the same."""
    return f"max by (bucket) ({metric}{_CHOSEN})"


BUCKETS = Dashboard(
    name="buckets",
    title="Buckets",
    meaning="The largest buckets, as many as `ostraka admin settings set --bucket-metrics N` says;"
    " without it this page is empty.",
    choices=(Choice("bucket", "ostraka_bucket_size_bytes", "bucket"),),
    rows=(
        Row(
            "What they hold",
            (
                Panel(
                    title="Size",
                    meaning="Bytes as clients see them: of objects, of versions that are not current, and"
                    " of parts of unfinished uploads.",
                    queries=(Query(_told("ostraka_bucket_size_bytes"), "{{bucket}}"),),
                    unit="bytes",
                    width=12,
                    stacked=True,
                ),
                Panel(
                    title="Objects",
                    meaning="Current ones, and versions that are not.",
                    queries=(Query(_told("ostraka_bucket_objects"), "{{bucket}}"),),
                    width=12,
                    stacked=True,
                ),
                Panel(
                    title="Growth in bytes",
                    meaning="A second; below nothing while more is deleted than written.",
                    queries=(
                        Query(
                            "max by (bucket) (deriv(ostraka_bucket_size_bytes"
                            f"{_CHOSEN}[$__rate_interval]))",
                            "{{bucket}}",
                        ),
                    ),
                    unit="Bps",
                    width=12,
                    least=None,
                ),
                Panel(
                    title="Growth in objects",
                    meaning="A second.",
                    queries=(
                        Query(
                            "max by (bucket) (deriv(ostraka_bucket_objects"
                            f"{_CHOSEN}[$__rate_interval]))",
                            "{{bucket}}",
                        ),
                    ),
                    width=12,
                    least=None,
                ),
            ),
        ),
        Row(
            "Quotas",
            (
                Panel(
                    title="Share of the quota of bytes",
                    meaning="Of buckets that have one. At 100 % writes are refused.",
                    queries=(
                        Query(
                            f"{_told('ostraka_bucket_size_bytes')}"
                            f" / {_told('ostraka_bucket_quota_bytes')}",
                            "{{bucket}}",
                        ),
                    ),
                    unit="percentunit",
                    kind=Kind.BARS,
                    width=12,
                    most=1,
                ),
                Panel(
                    title="Share of the quota of objects",
                    meaning="Of buckets that have one. At 100 % new objects are refused.",
                    queries=(
                        Query(
                            f"{_told('ostraka_bucket_objects')}"
                            f" / {_told('ostraka_bucket_quota_objects')}",
                            "{{bucket}}",
                        ),
                    ),
                    unit="percentunit",
                    kind=Kind.BARS,
                    width=12,
                    most=1,
                ),
            ),
        ),
    ),
)
