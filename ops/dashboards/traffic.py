"""Traffic, errors and latency by S3 operation."""

from ops.dashboards.model import Choice, Dashboard, Panel, Query, Row

_CHOSEN = '{job=~"$job",operation=~"$operation"}'


def _rate(metric: str, by: str, legend: str) -> Query:
    return Query(f"sum by ({by}) (rate({metric}{_CHOSEN}[$__rate_interval]))", legend)


def _quantile(share: float, metric: str, legend: str, by: str = "job") -> Query:
    rate = f"rate({metric}_bucket{_CHOSEN}[$__rate_interval])"
    return Query(f"histogram_quantile({share}, sum by ({by}, le) ({rate}))", legend)


TRAFFIC = Dashboard(
    name="traffic",
    title="Traffic",
    meaning="Requests, errors and latency, by operation.",
    choices=(Choice("operation", "ostraka_requests_total", "operation"),),
    rows=(
        Row(
            "Requests",
            (
                Panel(
                    title="Requests by operation",
                    meaning="A second.",
                    queries=(_rate("ostraka_requests_total", "operation", "{{operation}}"),),
                    unit="reqps",
                    width=12,
                    stacked=True,
                ),
                Panel(
                    title="Answers by code",
                    meaning="HTTP status of good answers, S3 error code of others; a second.",
                    queries=(_rate("ostraka_requests_total", "code", "{{code}}"),),
                    unit="reqps",
                    width=12,
                    stacked=True,
                ),
                Panel(
                    title="Requests under way",
                    meaning="By gateway.",
                    queries=(
                        Query(
                            'sum by (instance) (ostraka_requests_inflight{job=~"$job"})',
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    title="Bytes in by operation",
                    meaning="Bodies of requests.",
                    queries=(_rate("ostraka_received_bytes_total", "operation", "{{operation}}"),),
                    unit="Bps",
                    stacked=True,
                ),
                Panel(
                    title="Bytes out by operation",
                    meaning="Bodies of answers.",
                    queries=(_rate("ostraka_sent_bytes_total", "operation", "{{operation}}"),),
                    unit="Bps",
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Latency",
            (
                Panel(
                    title="Time to the first byte",
                    meaning="Of all chosen operations together: half, nine in ten, 99 in 100.",
                    queries=(
                        _quantile(0.5, "ostraka_first_byte_seconds", "p50"),
                        _quantile(0.9, "ostraka_first_byte_seconds", "p90"),
                        _quantile(0.99, "ostraka_first_byte_seconds", "p99"),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Whole request",
                    meaning="Bodies included: large objects take their time.",
                    queries=(
                        _quantile(0.5, "ostraka_request_seconds", "p50"),
                        _quantile(0.9, "ostraka_request_seconds", "p90"),
                        _quantile(0.99, "ostraka_request_seconds", "p99"),
                    ),
                    unit="s",
                ),
                Panel(
                    title="p99 to the first byte by operation",
                    meaning="One request in a hundred waits longer.",
                    queries=(
                        _quantile(0.99, "ostraka_first_byte_seconds", "{{operation}}", "operation"),
                    ),
                    unit="s",
                ),
            ),
        ),
        Row(
            "What went wrong",
            (
                Panel(
                    title="Internal errors",
                    meaning="Requests that met a bug or damage beyond repair, a second.",
                    queries=(
                        Query(
                            "sum by (instance) (rate(ostraka_internal_errors_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "{{instance}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    title="Lost lines of the access log",
                    meaning="Lines that could not be written, a second.",
                    queries=(
                        Query(
                            "sum by (instance) (rate(ostraka_access_log_lost_lines_total"
                            '{job=~"$job"}[$__rate_interval]))',
                            "{{instance}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
    ),
)
