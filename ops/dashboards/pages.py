"""Which dashboards there are, and the files that are generated from them and from the alert rules."""

import json
from pathlib import Path

from ops.dashboards.buckets import BUCKETS
from ops.dashboards.drives import DRIVES
from ops.dashboards.etcd import ETCD
from ops.dashboards.health import HEALTH
from ops.dashboards.node import NODE
from ops.dashboards.processes import PROCESSES
from ops.dashboards.traffic import TRAFFIC

OPS = Path(__file__).parents[1]
CHART_FILES = OPS.parent / "helm" / "ostraka" / "files"
ALERTS = OPS / "alerts" / "ostraka.yaml"
DASHBOARDS = (HEALTH, TRAFFIC, BUCKETS, NODE, DRIVES, PROCESSES, ETCD)


def generated() -> dict[Path, str]:
    """Every generated file and what it should hold. Helm reads only what lies in the chart."""
    files = {CHART_FILES / "alerts.yaml": ALERTS.read_text()}
    for dashboard in DASHBOARDS:
        content = json.dumps(dashboard.document(), indent=1) + "\n"
        for folder in (OPS / "dashboards" / "json", CHART_FILES / "dashboards"):
            files[folder / f"ostraka-{dashboard.name}.json"] = content
    return files
