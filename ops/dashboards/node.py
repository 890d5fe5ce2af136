"""One node: its drives, what they do and how long it takes, and what its process needs."""

from ops.dashboards.model import Choice, Dashboard, Panel, Query, Row

_CHOSEN = 'job=~"$job",instance=~"$instance"'
_DRIVE = "{{instance}} {{drive}}"


def _rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{_CHOSEN}{more}}}[$__rate_interval]))"


def _mean(by: str, more: str = "") -> str:
    seconds = _rate("ostraka_shard_operation_seconds_total", by, more)
    return f"{seconds} / ({_rate('ostraka_shard_operations_total', by, more)} > 0)"


def _panel(title: str, meaning: str, expression: str, legend: str, unit: str = "short") -> Panel:
    return Panel(title=title, meaning=meaning, queries=(Query(expression, legend),), unit=unit)


def _process(metric: str, more: str = "") -> str:
    return f"max by (instance, process) ({metric}{{{_CHOSEN}{more}}})"


NODE = Dashboard(
    name="node",
    title="Node",
    meaning="One node, by the address of its admin port: what it tells of its own drives, and what its"
    " process needs. A store of one machine is one node, too.",
    choices=(Choice("instance", "ostraka_node_drives", "instance"),),
    rows=(
        Row(
            "Drives",
            (
                _panel(
                    "Drives by state",
                    "As the node itself sees them.",
                    f"max by (node, state) (ostraka_node_drives{{{_CHOSEN}}})",
                    "{{node}} {{state}}",
                ),
                _panel(
                    "Operations by drive",
                    "A second, of all kinds.",
                    _rate("ostraka_shard_operations_total", "instance, drive"),
                    _DRIVE,
                    "ops",
                ),
                _panel(
                    "Operations by kind",
                    "A second, on all of its drives.",
                    _rate("ostraka_shard_operations_total", "instance, operation"),
                    "{{instance}} {{operation}}",
                    "ops",
                ),
                _panel(
                    "Bytes by drive",
                    "Of shards, a second.",
                    _rate("ostraka_shard_bytes_total", "instance, drive"),
                    _DRIVE,
                    "Bps",
                ),
                _panel(
                    "Mean time of an operation, by drive",
                    "A drive that stands out is on its way to fail.",
                    _mean("instance, drive"),
                    _DRIVE,
                    "s",
                ),
                _panel(
                    "Mean time of a flush, by drive",
                    "A flush makes a group of writes durable.",
                    _mean("instance, drive", ',operation="flush"'),
                    _DRIVE,
                    "s",
                ),
            ),
        ),
        Row(
            "Process",
            (
                _panel(
                    "CPU",
                    "Cores in use.",
                    _rate("ostraka_process_cpu_seconds_total", "instance, process"),
                    "{{instance}} {{process}}",
                ),
                _panel(
                    "Lag of the event loop",
                    "How late a timer ran at worst in the last minute or two.",
                    _process("ostraka_event_loop_lag_seconds"),
                    "{{instance}} {{process}}",
                    "s",
                ),
                _panel(
                    "Resident memory",
                    "Of each process.",
                    _process("ostraka_process_memory_bytes", ',kind="resident"'),
                    "{{instance}} {{process}}",
                    "bytes",
                ),
            ),
        ),
    ),
)
