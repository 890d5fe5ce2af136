"""Writes what follows from the chart's values.yaml: its README and its schema of values.

`python -m tests.helm.generate` writes both files; a test fails while they differ.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

CHART = Path(__file__).parents[2] / "helm" / "ostraka"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
HOST = r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
POLICY: dict[str, Any] = {"type": "object", "required": ["Statement"]}
POLICIES = {
    "type": "object",
    "propertyNames": {"pattern": r"^[A-Za-z0-9_+=,.@-]{1,128}$"},
    "additionalProperties": POLICY,
}
PEERS = {"type": "object", "minProperties": 1}
SPREAD = {"enum": ["ScheduleAnyway", "DoNotSchedule"]}
SERVICE: dict[str, dict[str, Any]] = {
    "type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "port": {"minimum": 1, "maximum": 65535},
    "nodePort": {"type": ["integer", "null"], "minimum": 1, "maximum": 65535},
}
FREE_MAPS = {
    "commonLabels", "commonAnnotations", "annotations", "labels", "nodeSelector", "affinity",
    "podAnnotations", "podLabels", "resources",
}  # fmt: skip


def _named(properties: dict[str, Any]) -> dict[str, Any]:
    """A list of things to provide, each with a name and nothing but these properties."""
    return {
        "items": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": properties,
        }
    }


RULES: dict[str, dict[str, Any]] = {
    "mode": {"enum": ["single", "cluster"]},
    "image.digest": {"pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.pullSecrets": {"items": {"type": "object", "required": ["name"]}},
    "scheme.data": {"minimum": 1, "maximum": 32},
    "scheme.parity": {"minimum": 0, "maximum": 16},
    "domains": {"items": {"type": "string", "pattern": HOST}},
    "tls.certManager.dnsNames": {"items": {"type": "string", "pattern": HOST}},
    "tls.certManager.issuerRef.kind": {"enum": ["Issuer", "ClusterIssuer"]},
    "service.externalTrafficPolicy": {"enum": ["Cluster", "Local"]},
    "service.loadBalancerSourceRanges": {"items": {"type": "string"}},
    **{f"{service}.{name}": rule for service in ("service", "websites.service")
       for name, rule in SERVICE.items()},
    "websites.ingress.hosts": {"items": {"type": "string", "pattern": HOST}},
    "websites.ingress.tls": {"items": {"type": "object"}},
    "websites.httpRoute.hostnames": {"items": {"type": "string", "pattern": HOST}},
    "networkPolicy.websitesFrom": {"items": PEERS},
    "ingress.hosts": {"items": {"type": "string", "pattern": HOST}},
    "ingress.tls": {"items": {"type": "object"}},
    "httpRoute.parentRefs": {"items": {"type": "object", "required": ["name"]}},
    "httpRoute.hostnames": {"items": {"type": "string", "pattern": HOST}},
    "store.workers": {"type": ["integer", "null"], "minimum": 1, "maximum": 64},
    "store.drives.count": {"minimum": 1, "maximum": 64},
    "gateway.replicas": {"minimum": 1},
    "gateway.workers": {"minimum": 1, "maximum": 64},
    "gateway.autoscaling.minReplicas": {"minimum": 1},
    "gateway.autoscaling.maxReplicas": {"minimum": 1},
    "gateway.autoscaling.targetCPUUtilizationPercentage": {"minimum": 1, "maximum": 100},
    "node.replicas": {"minimum": 1},
    "node.drives.count": {"minimum": 1, "maximum": 64},
    "node.port": {"minimum": 1, "maximum": 65535},
    "node.maxUnavailable": {"type": ["integer", "null"], "minimum": 0},
    "node.zone.from": {"enum": ["nodeLabel", "podLabel", "fixed"]},
    "keeper.replicas": {"minimum": 1},
    "etcd.replicas": {"enum": [1, 3, 5]},
    "etcd.externalEndpoints": {"items": {"type": "string", "pattern": "^https?://[^/]+$"}},
    "etcd.quotaBytes": {"minimum": 100_000_000, "maximum": 17_179_869_184},
    "etcd.snapshots.schedule": {"pattern": r"^(@(hourly|daily|weekly)|\S+ \S+ \S+ \S+ \S+)$"},
    "etcd.snapshots.keep": {"minimum": 1},
    "provisioning.accounts": _named(
        {
            "name": {"type": "string", "pattern": NAME},
            "email": {"type": "string"},
            "existingSecret": {"type": "string"},
        }
    ),
    "provisioning.buckets": _named(
        {
            "name": {"type": "string", "pattern": r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"},
            "account": {"type": "string"},
            "versioning": {"type": "boolean"},
            "policy": POLICY,
        }
    ),
    "provisioning.groups": _named(
        {
            "name": {"type": "string", "pattern": NAME},
            "account": {"type": "string"},
            "policies": POLICIES,
        }
    ),
    "provisioning.users": _named(
        {
            "name": {"type": "string", "pattern": NAME},
            "account": {"type": "string"},
            "existingSecret": {"type": "string"},
            "policies": POLICIES,
            "groups": {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
        }
    ),
    "networkPolicy.s3From": {"items": PEERS},
    "networkPolicy.adminFrom": {"items": PEERS},
    "podSecurity.runAsUser": {"minimum": 1},
    "podSecurity.runAsGroup": {"minimum": 1},
    "podSecurity.fsGroup": {"minimum": 1},
    "extraObjects": {"items": {"type": ["object", "string"]}},
    **{f"{part}.spread.{where}": SPREAD for part in ("gateway", "node", "keeper", "etcd")
       for where in ("host", "zone")},
}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """One documented value: its dotted name, default, and comment."""

    name: str
    default: Any
    comment: str


def documented(text: str) -> dict[str, str]:
    """Dotted name → comment, read from the lines, because YAML forgets comments."""
    comments: dict[str, str] = {}
    path: list[str] = []
    pending: list[str] = []
    for line in text.splitlines():
        if found := re.fullmatch(r"( *)# ?(.*)", line):
            pending.append(found[2])
            continue
        if found := re.match(r"( *)([A-Za-z0-9]+):", line):
            depth = len(found[1]) // 2
            path = [*path[:depth], found[2]]
            if pending:
                comments[".".join(path)] = " ".join(pending)
        pending = []
    return comments


def values() -> Iterator[Value]:
    """Every value that has a comment, in the order of the file."""
    text = (CHART / "values.yaml").read_text()
    defaults = yaml.safe_load(text)
    for name, comment in documented(text).items():
        default = defaults
        for part in name.split("."):
            default = default[part]
        yield Value(name, default, comment)


def schema() -> dict[str, Any]:
    """JSON schema: nothing but what values.yaml knows, each of its kind."""
    text = (CHART / "values.yaml").read_text()
    made = _schema_of("", yaml.safe_load(text), documented(text))
    made["properties"]["global"] = {
        "type": "object",
        "description": "Set by parent charts; unused.",
    }
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Ostraka", **made}


def _schema_of(name: str, default: Any, comments: dict[str, str]) -> dict[str, Any]:
    key = name.rpartition(".")[2]
    made: dict[str, Any] = {"description": comments[name]} if name in comments else {}
    match default:
        case bool():
            made["type"] = "boolean"
        case int():
            made |= {"type": "integer", "minimum": 0}
        case str():
            made["type"] = "string"
            if key == "size":
                made["pattern"] = QUANTITY
        case list():
            made["type"] = "array"
            if key in ("tolerations", "extraEnv", "extraVolumes", "extraVolumeMounts", "sidecars"):
                made["items"] = {"type": "object"}
            if key == "extraArgs":
                made["items"] = {"type": "string"}
        case dict() if key in FREE_MAPS:
            made["type"] = "object"
        case dict():
            made |= {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    inner: _schema_of(f"{name}.{inner}".lstrip("."), value, comments)
                    for inner, value in default.items()
                },
            }
    return made | RULES.get(name, {})


def readme() -> str:
    """The chart's README: how to install, then every value."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    head = (Path(__file__).parent / "readme_head.md").read_text()
    lines = [head.replace("VERSION", chart["version"]), "## Values", ""]
    lines += ["| value | default | meaning |", "|---|---|---|"]
    for value in values():
        if isinstance(value.default, dict) and value.name.rpartition(".")[2] not in (
            FREE_MAPS | {"spread", "issuerRef"}
        ):
            lines.append(f"| **{value.name}** | | {value.comment} |")
            continue
        default = json.dumps(value.default).replace("|", "\\|")
        lines.append(f"| `{value.name}` | `{default}` | {value.comment.replace('|', '&#124;')} |")
    return "\n".join(lines) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    return {
        CHART / "README.md": readme(),
        CHART / "values.schema.json": json.dumps(schema(), indent=1) + "\n",
    }


if __name__ == "__main__":
    for path, content in generated().items():
        path.write_text(content)
