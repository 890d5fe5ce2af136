"""The chart in a live API server: every set of values is installed, upgraded and uninstalled.

Optional: it runs where the variable KUBE_APISERVER names the program, built from k8s.io/kubernetes with
its version stamped in (`-ldflags "-X k8s.io/component-base/version.gitVersion=v1.36.3"`): Helm asks for it.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helm import generate
from tests.helm.api_server import ApiServer
from tests.helm.test_chart import POD_KINDS, pod_of
from tests.helm.toolbox import ToolsMissing, run_live, toolbox
from tests.helm.value_sets import ACCEPTED

BINARY = os.environ.get("KUBE_APISERVER", "")
pytestmark = [
    pytest.mark.skipif(not BINARY, reason="KUBE_APISERVER names no kube-apiserver"),
    pytest.mark.timeout(900),
]
SCHEMAS = Path(__file__).parent / "schemas"
PLURALS = {
    "Certificate": "certificates", "Issuer": "issuers", "HTTPRoute": "httproutes",
    "ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules",
}  # fmt: skip
Thing = dict[str, Any]


def structural(schema: Any) -> Any:
    """A published schema as an API server takes it: every value has a type, or is left open."""
    if not isinstance(schema, dict):
        return schema
    if "type" not in schema or not isinstance(schema["type"], str):
        return {"x-kubernetes-preserve-unknown-fields": True}
    made: Thing = {"type": schema["type"]}
    for name in ("enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "required"):
        if name in schema:
            made[name] = schema[name]
    if "properties" in schema:
        made["properties"] = {k: structural(v) for k, v in schema["properties"].items()}
    elif isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = structural(schema["additionalProperties"])
    elif schema["type"] == "object":
        made["x-kubernetes-preserve-unknown-fields"] = True
    if schema["type"] == "array":
        made["items"] = structural(schema.get("items", {}))
    return made


def definition(path: Path) -> Thing:
    """The definition of a custom resource, from the schema that the chart's tests have of it."""
    group, version, kind = path.stem.split("_")
    name = next(name for name in PLURALS if name.lower() == kind)
    schema = json.loads(path.read_text())
    properties = {k: structural(v) for k, v in schema["properties"].items() if k == "spec"}
    metadata: Thing = {"name": f"{PLURALS[name]}.{group}"}
    if group.endswith("k8s.io"):
        url = "https://github.com/kubernetes-sigs/gateway-api"
        metadata["annotations"] = {"api-approved.kubernetes.io": url}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": name, "plural": PLURALS[name], "singular": kind},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
                }
            ],
        },
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """With the definitions of custom resources, and what the sets of values take for granted."""
    try:
        toolbox()
    except ToolsMissing as reason:
        pytest.skip(str(reason))
    running = ApiServer(BINARY, tmp_path_factory.mktemp("kubernetes"))
    try:
        running.start()
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for path in sorted(SCHEMAS.glob("*.json")):
            running.ask("POST", crds, definition(path))
        end = time.monotonic() + 60
        while not all(_established(crd) for crd in running.ask("GET", crds)["items"]):
            assert time.monotonic() < end, "custom resources are not served"
            time.sleep(0.2)
        priority: Thing = {"kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}
        priorities = "/apis/scheduling.k8s.io/v1/priorityclasses"
        running.ask("POST", priorities, {"apiVersion": "scheduling.k8s.io/v1", **priority})
        yield running
    finally:
        running.close()


def _established(crd: Thing) -> bool:
    conditions = crd.get("status", {}).get("conditions", [])
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def make_namespace(server: ApiServer, name: str) -> None:
    """Every pod in it must fit the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    document = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }
    server.ask("POST", "/api/v1/namespaces", document)


def make_account(server: ApiServer, namespace: str, name: str) -> None:
    """A service account that is there before the release."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    server.ask("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", account)


def secrets(server: ApiServer, namespace: str) -> dict[str, Any]:
    """Those of the chart, by name: what they hold."""
    found = server.ask("GET", f"/api/v1/namespaces/{namespace}/secrets")["items"]
    return {s["metadata"]["name"]: s["data"] for s in found if s["type"] == "Opaque"}


def helm(server: ApiServer, *steps: dict[str, Any]) -> None:
    """Carry out steps, none of which may fail."""
    request = {
        "chart": str(generate.CHART), "kubeconfig": server.kubeconfig(), "steps": list(steps),
    }  # fmt: skip
    for step, told in zip(steps, run_live(request), strict=True):
        assert told["error"] == "", (step["do"], step["namespace"])


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_release_is_installed_upgraded_and_uninstalled(server: ApiServer, name: str) -> None:
    """Random secrets are those of the first install, over upgrades and a second install too."""
    make_namespace(server, name)
    account = ACCEPTED[name].get("serviceAccount", {})
    if account.get("create") is False:
        make_account(server, name, account["name"])
    # The job that makes buckets is a hook, which Helm waits for, and no pod ever runs here.
    values = {**ACCEPTED[name], "provisioning": {"enabled": False}}
    at = {"namespace": name}
    helm(server, {"do": "install", "values": ACCEPTED[name], "dry_run": True, **at})
    assert secrets(server, name) == {}, "a dry run leaves nothing"
    helm(server, {"do": "install", "values": values, **at})
    first = secrets(server, name)
    assert len(first) == (0 if "rootCredentials" in values else 2 if "mode" in values else 1)
    newer = {**values, "image": {**values.get("image", {}), "tag": "9.9.9"}}
    helm(server, {"do": "upgrade", "values": newer, **at})
    assert secrets(server, name) == first
    kinds = server.ask("GET", f"/apis/apps/v1/namespaces/{name}/statefulsets")["items"]
    assert kinds
    pods_fit(server, name, kinds)
    deployments = server.ask("GET", f"/apis/apps/v1/namespaces/{name}/deployments")["items"]
    pods_fit(server, name, deployments)
    helm(server, {"do": "uninstall", **at})
    assert secrets(server, name) == first, "they are kept"
    assert not server.ask("GET", f"/apis/apps/v1/namespaces/{name}/statefulsets")["items"]
    helm(server, {"do": "install", "values": values, **at}, {"do": "uninstall", **at})
    assert secrets(server, name) == first


def pods_fit(server: ApiServer, namespace: str, workloads: list[Thing]) -> None:
    """The server would take their pods: they are valid, and fit the restricted standard."""
    for workload in workloads:
        assert workload.get("kind", "StatefulSet") in POD_KINDS
        spec = pod_of({"kind": "StatefulSet", **workload})
        claims = workload["spec"].get("volumeClaimTemplates", [])
        volumes = [{"name": claim["metadata"]["name"], "emptyDir": {}} for claim in claims]
        spec["volumes"] = [*spec.get("volumes", []), *volumes]
        foreign = {"logs", "before"}  # containers that a set of values adds, as they please
        for kind in ("containers", "initContainers"):
            spec[kind] = [c for c in spec.get(kind, []) if c["name"] not in foreign]
        metadata = {"name": "one", "labels": workload["spec"]["template"]["metadata"]["labels"]}
        # Copied by Kubernetes from the node that a pod is put on.
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        server.ask("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)


def test_a_pod_with_privileges_is_refused_there(server: ApiServer) -> None:
    """The standard is enforced, or the test above would prove nothing."""
    make_namespace(server, "strict")
    make_account(server, "strict", "default")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    with pytest.raises(OSError, match="restricted"):
        server.ask("POST", "/api/v1/namespaces/strict/pods?dryRun=All", pod)
