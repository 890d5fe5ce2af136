"""Processes of one instance or all: CPU, memory, event loop, descriptors."""

from ops.dashboards.model import Choice, Dashboard, Panel, Query, Row

_CHOSEN = 'job=~"$job",instance=~"$instance"'
_NAMED = "{{instance}} {{process}}"

PROCESSES = Dashboard(
    name="processes",
    title="Processes",
    meaning="One instance or all: what its processes need of the machine.",
    choices=(Choice("instance", "ostraka_process_open_files", "instance"),),
    rows=(
        Row(
            "Processes",
            (
                Panel(
                    title="CPU",
                    meaning="Cores in use by each process.",
                    queries=(
                        Query(
                            "sum by (instance, process) (rate(ostraka_process_cpu_seconds_total"
                            f"{{{_CHOSEN}}}[$__rate_interval]))",
                            _NAMED,
                        ),
                    ),
                    width=12,
                    stacked=True,
                ),
                Panel(
                    title="Lag of the event loop",
                    meaning="How late a timer ran at worst in the last minute or two. Above a"
                    " second clients notice.",
                    queries=(
                        Query(
                            "max by (instance, process)"
                            f" (ostraka_event_loop_lag_seconds{{{_CHOSEN}}})",
                            _NAMED,
                        ),
                    ),
                    unit="s",
                    width=12,
                ),
                Panel(
                    title="Resident memory",
                    meaning="Of each process; shared pages are counted in each.",
                    queries=(
                        Query(
                            "max by (instance, process) (ostraka_process_memory_bytes"
                            f'{{{_CHOSEN},kind="resident"}})',
                            _NAMED,
                        ),
                    ),
                    unit="bytes",
                ),
                Panel(
                    title="Memory of an instance",
                    meaning="Proportional sizes added up: what the machine gives.",
                    queries=(
                        Query(
                            "sum by (instance) (ostraka_process_memory_bytes"
                            f'{{{_CHOSEN},kind="proportional"}})',
                            "{{instance}}",
                        ),
                    ),
                    unit="bytes",
                ),
                Panel(
                    title="Open descriptors",
                    meaning="Connections and files.",
                    queries=(
                        Query(
                            f"max by (instance, process) (ostraka_process_open_files{{{_CHOSEN}}})",
                            _NAMED,
                        ),
                    ),
                ),
            ),
        ),
    ),
)
