"""Runs inside the tools' environment: lints and renders a chart, and validates every object.

Standard input: {"chart": path, "sets": {name: values}, "versions": ["1.28", …], "schemas": folder}.
Standard output: {name: {"lint": [messages], "error": text, "objects": […], "notes": text,
"invalid": [messages]}}.
"""

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import helm_python  # type: ignore[import-not-found]
import jsonschema  # type: ignore[import-untyped,unused-ignore]
import kubernetes_validate  # type: ignore[import-not-found]
import referencing  # type: ignore[import-not-found]
import yaml  # type: ignore[import-untyped]

BUNDLED = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def schema_name(thing: dict[str, Any]) -> str:
    """File of an object's schema: `deployment-apps-v1.json`, `service-v1.json`."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", thing["apiVersion"])
    return f"{thing['kind'].lower()}-{group}.json"


@cache
def definitions(version: str) -> Any:
    """What the schemas of a version of Kubernetes refer to."""
    path = BUNDLED / f"v{version}.0-local-strict" / "_definitions.json"
    resource = referencing.Resource.from_contents(json.loads(path.read_text()))
    return resource @ referencing.Registry()


@cache
def validator(version: str, name: str) -> Any:
    """None when that version has no such object."""
    path = BUNDLED / f"v{version}.0-local-strict" / name
    if not path.exists():
        return None
    schema = json.loads(path.read_text())
    registry = referencing.Resource.from_contents(schema) @ definitions(version)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def custom_validator(path: Path) -> Any:
    """The published definition of a custom resource; None when there is none here."""
    return jsonschema.Draft202012Validator(json.loads(path.read_text())) if path.exists() else None


def faults(thing: dict[str, Any], versions: list[str], schemas: Path) -> list[str]:
    """Everything wrong with an object, in any of the versions."""
    called = f"{thing['kind']} {thing['metadata'].get('name')}"
    group = thing["apiVersion"].partition("/")[0]
    if ("." in group and not group.endswith("k8s.io")) or group.startswith("gateway."):
        custom = schemas / f"{thing['apiVersion'].replace('/', '_')}_{thing['kind'].lower()}.json"
        found = custom_validator(custom)
        if found is None:
            return [f"{called}: no definition of {thing['apiVersion']}"]
        return [
            f"{called}: {error.json_path} {error.message}" for error in found.iter_errors(thing)
        ]
    wrong = []
    for version in versions:
        found = validator(version, schema_name(thing))
        if found is None:
            wrong.append(f"{called}: Kubernetes {version} has no {thing['apiVersion']}")
            continue
        wrong += [
            f"{called} in {version}: {error.json_path} {error.message}"
            for error in found.iter_errors(thing)
        ]
    return wrong


def render(chart: Any, path: str, values: dict[str, Any], request: dict[str, Any]) -> Any:
    """One set of values."""
    result: dict[str, Any] = {"lint": [], "error": "", "objects": [], "notes": "", "invalid": []}
    try:
        chart.validate_schema(values)
        files = chart.render(values, name="pots", namespace="clay")
    except helm_python.HelmError as error:
        result["error"] = str(error)
        return result
    found = helm_python.lint(path, values, strict=True, namespace="clay")
    result["lint"] = [entry["message"] for entry in found["messages"] if entry["severity"] > 1]
    for name, text in sorted(files.items()):
        if name.endswith("NOTES.txt"):
            result["notes"] = text
            continue
        for thing in yaml.load_all(text, yaml.CSafeLoader):
            if thing:
                result["objects"].append(thing)
                result["invalid"] += faults(thing, request["versions"], Path(request["schemas"]))
    return result


def main() -> None:
    """Read the request, write the answer."""
    request = json.load(sys.stdin)
    with helm_python.Chart.load(request["chart"]) as chart:
        answer = {
            name: render(chart, request["chart"], values, request)
            for name, values in request["sets"].items()
        }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
