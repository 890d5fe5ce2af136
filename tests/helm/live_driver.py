"""Runs inside the tools' environment: Helm against a live API server.

Standard input: {"chart": path, "kubeconfig": text, "steps": [{"do": "install" | "upgrade" |
"uninstall", "namespace": …, "values": {…}, "dry_run": bool}, …]}. Standard output: for each step
{"error": text, "seconds": …}.
"""

import json
import sys
import time
from typing import Any

import helm_python  # type: ignore[import-not-found]

RELEASE = "pots"


def step(request: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """One action of Helm."""
    began = time.monotonic()
    error = ""
    with helm_python.Config(
        kubeconfig_content=request["kubeconfig"], namespace=asked["namespace"]
    ) as config:
        try:
            if asked["do"] == "uninstall":
                config.uninstall(RELEASE)
            else:
                act = config.install if asked["do"] == "install" else config.upgrade
                act(
                    request["chart"],
                    RELEASE,
                    asked["values"],
                    namespace=asked["namespace"],
                    dry_run="server" if asked.get("dry_run") else None,
                )
        except helm_python.HelmError as failed:
            error = str(failed)
    return {"error": error, "seconds": round(time.monotonic() - began, 2)}


def main() -> None:
    """Read the request, write the answer."""
    request = json.load(sys.stdin)
    json.dump([step(request, asked) for asked in request["steps"]], sys.stdout)


if __name__ == "__main__":
    main()
