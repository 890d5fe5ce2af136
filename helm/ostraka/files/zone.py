"""Writes a label of the Kubernetes node that this pod runs on to a file: the zone of its drives.

Usage: zone.py LABEL FILE, with NODE_NAME in the environment. A node
without the label is in the zone `default`, as one that was told none.
"""

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

IDENTITY = Path(os.environ.get("IDENTITY_FOLDER", "/var/run/secrets/kubernetes.io/serviceaccount"))


DEFAULT = "default"


def zone_of(node: str, label: str) -> str:
    """Ask the API server."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ["KUBERNETES_SERVICE_PORT"]
    where = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{where}:{port}/api/v1/nodes/{quote(node, safe='')}",
        headers={"Authorization": "Bearer " + (IDENTITY / "token").read_text().strip()},
    )
    trusted = ssl.create_default_context(cafile=str(IDENTITY / "ca.crt"))
    with urllib.request.urlopen(request, timeout=20, context=trusted) as answer:
        labels = json.load(answer)["metadata"].get("labels", {})
    return labels.get(label) or DEFAULT


if __name__ == "__main__":
    zone = zone_of(os.environ["NODE_NAME"], sys.argv[1])
    Path(sys.argv[2]).write_text(zone)
    print(f"zone {zone}")
