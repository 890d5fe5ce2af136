"""The chart, rendered by the real Helm: valid objects, and what matters for an operator in them."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.helm import generate
from tests.helm.toolbox import ToolsMissing, run_helm, toolbox
from tests.helm.value_sets import ACCEPTED, REFUSED

CHART = generate.CHART
VERSIONS = ["1.28", "1.32", "1.36"]
pytestmark = pytest.mark.timeout(400)  # the tools may have to be fetched first
POD_KINDS = {"Deployment", "StatefulSet", "Job", "CronJob", "Pod"}
Thing = dict[str, Any]


@pytest.fixture(scope="module")
def rendered() -> dict[str, Any]:
    """Every set of values, rendered once."""
    try:
        toolbox()
    except ToolsMissing as reason:
        pytest.skip(str(reason))
    sets = {**ACCEPTED, **{name: values for name, (values, _) in REFUSED.items()}}
    answer: dict[str, Any] = run_helm(
        {
            "chart": str(CHART),
            "sets": sets,
            "versions": VERSIONS,
            "schemas": str(Path(__file__).parent / "schemas"),
        }
    )
    return answer


def things(rendered: dict[str, Any], name: str, kind: str | None = None) -> list[Thing]:
    return [t for t in rendered[name]["objects"] if kind is None or t["kind"] == kind]


def the(rendered: dict[str, Any], name: str, kind: str, called: str) -> Thing:
    (found,) = [t for t in things(rendered, name, kind) if t["metadata"]["name"] == called]
    return found


def pod_of(thing: Thing) -> Thing:
    """The pod's spec of whatever makes pods."""
    spec: Thing = thing["spec"]
    if thing["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec if thing["kind"] == "Pod" else dict(spec["template"]["spec"])


def pods(rendered: dict[str, Any]) -> Iterator[tuple[str, Thing]]:
    for name in ACCEPTED:
        for thing in things(rendered, name):
            if thing["kind"] in POD_KINDS:
                yield f"{name}: {thing['metadata']['name']}", pod_of(thing)


def own_containers(pod: Thing) -> list[Thing]:
    foreign = {"logs", "before"}  # those that a set of values adds
    everything = [*pod.get("initContainers", []), *pod["containers"]]
    return [container for container in everything if container["name"] not in foreign]


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_chart_renders_without_a_word_of_lint(rendered: dict[str, Any], name: str) -> None:
    assert rendered[name]["error"] == ""
    assert rendered[name]["lint"] == []
    assert len(rendered[name]["objects"]) > 8


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_object_is_valid_in_three_versions(rendered: dict[str, Any], name: str) -> None:
    assert rendered[name]["invalid"] == []


@pytest.mark.parametrize("name", REFUSED)
def test_nonsense_is_refused_with_a_reason(rendered: dict[str, Any], name: str) -> None:
    assert REFUSED[name][1] in rendered[name]["error"]


def test_names_are_unique_and_objects_stay_in_their_namespace(rendered: dict[str, Any]) -> None:
    for name in ACCEPTED:
        found = [(t["kind"], t["metadata"]["name"]) for t in things(rendered, name)]
        assert len(found) == len(set(found)), name
        for thing in things(rendered, name):
            if not thing["kind"].startswith("ClusterRole") and "more" not in str(thing["metadata"]):
                assert thing["metadata"]["namespace"] == "clay"


def test_no_pod_has_any_privilege(rendered: dict[str, Any]) -> None:
    """The restricted pod security standard, and more."""
    for name, pod in pods(rendered):
        assert pod["automountServiceAccountToken"] is False, name
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))
        for container in own_containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name


def test_no_pod_gets_service_links(rendered: dict[str, Any]) -> None:
    """A service called ostraka would set OSTRAKA_PORT, which the program refuses as unknown."""
    for name, pod in pods(rendered):
        assert pod["enableServiceLinks"] is False, name


def test_only_the_init_container_that_reads_the_zone_has_a_token(rendered: dict[str, Any]) -> None:
    for name, pod in pods(rendered):
        bearers = [
            container["name"]
            for container in own_containers(pod)
            if any(
                "serviceaccount" in mount["mountPath"]
                for mount in container.get("volumeMounts", [])
            )
        ]
        has_node = any(container["name"] == "node" for container in pod["containers"])
        asks = has_node and ACCEPTED[name.partition(":")[0]].get("node", {}).get("zone") is None
        assert bearers == (["zone"] if asks else []), name
    (role,) = things(rendered, "cluster", "ClusterRole")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    assert things(rendered, "single", "ClusterRole") == []


def test_services_and_budgets_select_pods_that_exist(rendered: dict[str, Any]) -> None:
    for name in ACCEPTED:
        templates = [
            t["spec"]["template"]["metadata"]["labels"]
            for t in things(rendered, name)
            if t["kind"] in ("Deployment", "StatefulSet")
        ]
        for thing in things(rendered, name):
            match thing["kind"]:
                case "Service":
                    wanted = thing["spec"]["selector"]
                case "PodDisruptionBudget":
                    wanted = thing["spec"]["selector"]["matchLabels"]
                case "NetworkPolicy":
                    wanted = thing["spec"]["podSelector"]["matchLabels"]
                case _:
                    continue
            hits = [labels for labels in templates if wanted.items() <= labels.items()]
            assert len(hits) == 1, (name, thing["kind"], thing["metadata"]["name"])


def test_ports_that_are_named_exist(rendered: dict[str, Any]) -> None:
    for name in ACCEPTED:
        known = {
            port["name"]
            for thing in things(rendered, name)
            if thing["kind"] in ("Deployment", "StatefulSet")
            for container in pod_of(thing)["containers"]
            for port in container.get("ports", [])
        }
        for service in things(rendered, name, "Service"):
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= known
        for policy in things(rendered, name, "NetworkPolicy"):
            for rule in policy["spec"]["ingress"]:
                assert {port["port"] for port in rule["ports"]} <= known


def test_mounts_have_volumes_and_secrets_exist(rendered: dict[str, Any]) -> None:
    given = {"s3-tls", "root-keys", "velero-s3", "etcd-client", "key", "es", "ec", "node-tls"}
    given |= {"backup-keys"}
    for name in ACCEPTED:
        made = {t["metadata"]["name"] for t in things(rendered, name, "Secret")}
        made |= {t["spec"]["secretName"] for t in things(rendered, name, "Certificate")}
        for thing in things(rendered, name):
            if thing["kind"] not in POD_KINDS:
                continue
            pod = pod_of(thing)
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            claims = thing["spec"].get("volumeClaimTemplates", [])
            volumes |= {claim["metadata"]["name"] for claim in claims}
            for container in own_containers(pod):
                mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
                assert mounts <= volumes, (name, thing["metadata"]["name"])
                for entry in container.get("env", []):
                    key = entry.get("valueFrom", {}).get("secretKeyRef")
                    assert key is None or key["name"] in made | given
            for volume in pod.get("volumes", []):
                if "secret" in volume:
                    assert volume["secret"]["secretName"] in made | given, (name, volume)
                for source in volume.get("projected", {}).get("sources", []):
                    if "secret" in source:
                        assert source["secret"]["name"] in made | given, (name, source)


def test_the_keys_of_provisioned_users_are_mounted_where_the_job_looks(
    rendered: dict[str, Any],
) -> None:
    """Users of two accounts may have the same name; keys come from secrets alone."""
    job = the(rendered, "cluster-full", "Job", "pots-ostraka-provision")
    (volume,) = [v for v in pod_of(job)["volumes"] if v["name"] == "users"]
    mounted = {
        item["path"]: source["secret"]["name"]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
        if item["key"] == "access-key"
    }
    assert mounted == {
        "loki/eyes/access-key": "pots-ostraka-user-loki.eyes",
        "root/eyes/access-key": "pots-ostraka-user-eyes",
        "velero/backup/access-key": "backup-keys",
    }
    (container,) = pod_of(job)["containers"]
    (folder,) = [e["value"] for e in container["env"] if e["name"] == "USERS_FOLDER"]
    assert folder in {mount["mountPath"] for mount in container["volumeMounts"]}
    for called in ("pots-ostraka-user-loki.eyes", "pots-ostraka-user-eyes"):
        secret = the(rendered, "cluster-full", "Secret", called)
        assert len(base64.b64decode(secret["data"]["secret-key"])) == 40
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    wanted = the(rendered, "cluster-full", "ConfigMap", "pots-ostraka-scripts")["data"]
    assert json.loads(wanted["wanted.json"])["users"][1]["policies"]["read"]["Statement"]


def test_secrets_are_random_long_and_survive(rendered: dict[str, Any]) -> None:
    for name in ("single", "cluster"):
        root = the(rendered, name, "Secret", "pots-ostraka-root")
        access, secret = (
            base64.b64decode(root["data"][key]).decode() for key in ("access-key", "secret-key")
        )
        assert len(access) == 20
        assert access.isalnum()
        assert len(secret) == 40
        assert root["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    first, second = (
        the(rendered, name, "Secret", "pots-ostraka-root")["data"] for name in ("single", "cluster")
    )
    assert first["secret-key"] != second["secret-key"]
    key = the(rendered, "cluster", "Secret", "pots-ostraka-cluster-key")
    assert len(base64.b64decode(key["data"]["cluster.key"])) == 32
    assert things(rendered, "single-secured", "Secret") == []
    assert things(rendered, "cluster-external-etcd", "Secret") == []
    template = (CHART / "templates" / "secrets.yaml").read_text()
    assert template.count("lookup ") == template.count("kind: Secret") == 3


@pytest.mark.parametrize(
    ("name", "budget"),
    [("cluster", 1), ("cluster-full", 1), ("cluster-small", 0), ("cluster-wide", 3)],
)
def test_the_budget_of_nodes_follows_from_m(
    rendered: dict[str, Any], name: str, budget: int
) -> None:
    prefix = "jar" if name == "cluster-small" else "pots-ostraka"
    found = the(rendered, name, "PodDisruptionBudget", f"{prefix}-node")
    assert found["spec"]["maxUnavailable"] == budget
    assert ("no node may be away" in rendered[name]["notes"]) == (budget == 0)


def test_etcd_never_loses_its_quorum_to_a_drain(rendered: dict[str, Any]) -> None:
    for name, prefix, away in (
        ("cluster", "pots-ostraka", 1), ("cluster-full", "pots-ostraka", 2), ("cluster-small", "jar", 0)
    ):  # fmt: skip
        budget = the(rendered, name, "PodDisruptionBudget", f"{prefix}-etcd")
        assert budget["spec"]["maxUnavailable"] == away
        etcd = the(rendered, name, "StatefulSet", f"{prefix}-etcd")
        (listed,) = [
            argument
            for argument in pod_of(etcd)["containers"][0]["args"]
            if argument.startswith("--initial-cluster=")
        ]
        assert len(listed.split(",")) == etcd["spec"]["replicas"] == 2 * away + 1


def test_pods_are_spread_over_hosts_and_zones(rendered: dict[str, Any]) -> None:
    for thing in things(rendered, "cluster"):
        if thing["kind"] in ("Deployment", "StatefulSet"):
            constraints = pod_of(thing)["topologySpreadConstraints"]
            assert [c["topologyKey"] for c in constraints] == [
                "kubernetes.io/hostname", "topology.kubernetes.io/zone",
            ]  # fmt: skip
            labels = thing["spec"]["selector"]["matchLabels"]
            assert all(c["labelSelector"]["matchLabels"] == labels for c in constraints)
    node = pod_of(the(rendered, "cluster", "StatefulSet", "pots-ostraka-node"))
    assert node["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"


@pytest.mark.parametrize("name", ["single", "cluster"])
def test_readiness_is_the_write_quorum(rendered: dict[str, Any], name: str) -> None:
    kind, component = ("StatefulSet", "store") if name == "single" else ("Deployment", "gateway")
    pod = pod_of(the(rendered, name, kind, f"pots-ostraka-{component}"))
    container = pod["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > slept + 30, "workers drain for up to 30 s"


def test_with_tls_the_admin_port_is_asked_over_tls(rendered: dict[str, Any]) -> None:
    """The program serves it with the same certificate; a keeper has none."""
    for name, kind, called in (
        ("single-secured", "StatefulSet", "pots-ostraka-store"),
        ("cluster-full", "Deployment", "pots-ostraka-gateway"),
    ):
        thing = the(rendered, name, kind, called)
        (container,) = [c for c in pod_of(thing)["containers"] if c["name"] in ("store", "gateway")]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["scheme"] == "HTTPS"
        annotations = thing["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/scheme"] == "https"
    keeper = the(rendered, "cluster-full", "Deployment", "pots-ostraka-keeper")
    assert "scheme" not in pod_of(keeper)["containers"][0]["livenessProbe"]["httpGet"]
    monitors = {
        m["metadata"]["name"]: m for m in things(rendered, "cluster-full", "ServiceMonitor")
    }
    assert set(monitors) == {
        "pots-ostraka",
        "pots-ostraka-keeper",
        "pots-ostraka-node",
        "pots-ostraka-etcd",
    }
    assert "scheme" not in monitors["pots-ostraka-node"]["spec"]["endpoints"][0]
    (endpoint,) = monitors["pots-ostraka"]["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    names = the(rendered, "cluster-full", "Certificate", "pots-ostraka-tls")["spec"]["dnsNames"]
    assert endpoint["tlsConfig"]["serverName"] in names
    (job,) = [
        j for j in things(rendered, "cluster-full", "Job") if "provision" in str(j["metadata"])
    ]
    environment = {e["name"]: e.get("value") for e in pod_of(job)["containers"][0]["env"]}
    for where in ("S3_ENDPOINT", "ADMIN_ENDPOINT"):
        scheme, _, rest = environment[where].partition("://")
        assert scheme == "https"
        assert rest.partition(":")[0] in names
    plain = pod_of(the(rendered, "single", "StatefulSet", "pots-ostraka-store"))["containers"][0]
    assert plain["readinessProbe"]["httpGet"]["scheme"] == "HTTP"


def test_nodes_are_probed_and_scraped_on_their_admin_port(rendered: dict[str, Any]) -> None:
    """Ready once registered; what gateways dial is told before that, else nobody would be."""
    node = the(rendered, "cluster-full", "StatefulSet", "pots-ostraka-node")
    (container,) = [c for c in pod_of(node)["containers"] if c["name"] == "node"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    args = container["args"]
    assert args[args.index("--admin-port") + 1] == str(ports["admin"])
    assert args[args.index("--bind") + 1] == "0.0.0.0"
    for probe, path in (
        ("startupProbe", "/health/live"),
        ("livenessProbe", "/health/live"),
        ("readinessProbe", "/health/ready"),
    ):
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}
    annotations = node["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["admin"])
    assert "prometheus.io/scheme" not in annotations
    service = the(rendered, "cluster-full", "Service", "pots-ostraka-node")["spec"]
    assert {port["targetPort"] for port in service["ports"]} == {"node", "admin"}
    assert service["publishNotReadyAddresses"] is True


def test_every_drive_is_a_claim_of_its_own(rendered: dict[str, Any]) -> None:
    for name, called, drives in (
        ("single", "pots-ostraka-store", 6), ("single-secured", "pots-ostraka-store", 12),
        ("cluster-full", "pots-ostraka-node", 12),
    ):  # fmt: skip
        thing = the(rendered, name, "StatefulSet", called)
        claims = [claim["metadata"]["name"] for claim in thing["spec"]["volumeClaimTemplates"]]
        (container,) = [c for c in pod_of(thing)["containers"] if c["name"] in ("store", "node")]
        paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        given = [
            container["args"][at + 1]
            for at, argument in enumerate(container["args"])
            if argument == "--drive"
        ]
        assert given == [f"/drives/{number}" for number in range(1, drives + 1)]
        assert [paths[f"drive{number}"] for number in range(1, drives + 1)] == given
        assert len([claim for claim in claims if claim.startswith("drive")]) == drives


def test_autoscaling_replaces_the_count_of_replicas(rendered: dict[str, Any]) -> None:
    (scaler,) = things(rendered, "cluster-full", "HorizontalPodAutoscaler")
    gateway = the(rendered, "cluster-full", "Deployment", "pots-ostraka-gateway")
    assert scaler["spec"]["scaleTargetRef"]["name"] == gateway["metadata"]["name"]
    assert "replicas" not in gateway["spec"]
    assert things(rendered, "cluster", "HorizontalPodAutoscaler") == []


def test_etcd_with_tls_trusts_nobody_without_a_certificate(rendered: dict[str, Any]) -> None:
    etcd = pod_of(the(rendered, "cluster-full", "StatefulSet", "pots-ostraka-etcd"))
    arguments = etcd["containers"][0]["args"]
    assert "--client-cert-auth" in arguments
    assert "--peer-client-cert-auth" in arguments
    plain = [a for a in arguments if "http://" in a and "--listen-metrics-urls" not in a]
    assert plain == []
    for component in ("gateway", "keeper"):
        pod = pod_of(the(rendered, "cluster-full", "Deployment", f"pots-ostraka-{component}"))
        container = pod["containers"][0]
        named = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        (mounted,) = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "etcd-tls"]
        for variable, file in (("CA", "ca.crt"), ("CERT", "tls.crt"), ("KEY", "tls.key")):
            assert named[f"OSTRAKA_ETCD_{variable}"] == f"{mounted}/{file}"
    assert "etcd speaks without TLS" in rendered["cluster"]["notes"]
    assert "etcd speaks without TLS" not in rendered["cluster-full"]["notes"]


def test_only_nodes_hold_the_private_key_of_nodes(rendered: dict[str, Any]) -> None:
    for name in ("cluster-full", "cluster-external-etcd"):
        node = pod_of(the(rendered, name, "StatefulSet", "pots-ostraka-node"))
        arguments = node["containers"][0]["args"]
        assert {"--tls-cert", "--tls-key", "--wire-only"} <= set(arguments)
        for component in ("gateway", "keeper"):
            pod = pod_of(the(rendered, name, "Deployment", f"pots-ostraka-{component}"))
            (authority,) = [v for v in pod["volumes"] if v["name"] == "node-ca"]
            assert authority["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
            assert "node-tls" not in {volume["name"] for volume in pod["volumes"]}
            names = {entry["name"] for entry in pod["containers"][0]["env"]}
            assert "OSTRAKA_NODE_CA" in names
    certificate = the(rendered, "cluster-full", "Certificate", "pots-ostraka-node-tls")
    advertised = "x.pots-ostraka-node.clay.svc"
    assert certificate["spec"]["dnsNames"] == ["*." + advertised.partition(".")[2]]
    node = pod_of(the(rendered, "cluster-full", "StatefulSet", "pots-ostraka-node"))
    assert f"$(POD_NAME){advertised[1:]}" in node["containers"][0]["args"]


def test_websites_have_a_port_a_service_and_a_route_of_their_own(rendered: dict[str, Any]) -> None:
    """And nothing of them is there unless they are asked for."""
    for name, kind, component, routed in (
        ("single-secured", "StatefulSet", "store", "Ingress"),
        ("cluster-full", "Deployment", "gateway", "HTTPRoute"),
    ):
        pod = pod_of(the(rendered, name, kind, f"pots-ostraka-{component}"))
        (container,) = [c for c in pod["containers"] if c["name"] == component]
        (port,) = [p["containerPort"] for p in container["ports"] if p["name"] == "websites"]
        args = container["args"]
        assert args[args.index("--website-port") + 1] == str(port)
        service = the(rendered, name, "Service", "pots-ostraka-websites")["spec"]["ports"]
        assert [(p["targetPort"], p["appProtocol"]) for p in service] == [("websites", "https")]
        route = the(rendered, name, routed, "pots-ostraka-websites")
        assert "'name': 'pots-ostraka-websites'" in str(route["spec"])
        policy = the(rendered, name, "NetworkPolicy", f"pots-ostraka-{component}")
        (rule,) = [r for r in policy["spec"]["ingress"] if r["ports"][0]["port"] == "websites"]
        peers = ACCEPTED[name].get("networkPolicy", {}).get("websitesFrom")
        assert rule.get("from") == peers
    assert "website" not in str(rendered["single"]["objects"]).lower()
    assert "website" not in str(rendered["cluster"]["objects"]).lower()


def test_an_ingress_is_told_that_its_backend_speaks_tls(rendered: dict[str, Any]) -> None:
    for name in ("single-secured", "cluster-full"):
        for ingress in things(rendered, name, "Ingress"):
            annotations = ingress["metadata"]["annotations"]
            assert annotations["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"
    assert things(rendered, "single-secured", "Ingress")


def test_the_admin_port_is_behind_no_ingress(rendered: dict[str, Any]) -> None:
    for thing in things(rendered, "cluster-full"):
        if thing["kind"] in ("Ingress", "HTTPRoute"):
            assert "admin" not in str(thing["spec"])
    policy = the(rendered, "cluster-full", "NetworkPolicy", "pots-ostraka-gateway")
    admin = policy["spec"]["ingress"][-1]
    assert [port["port"] for port in admin["ports"]] == ["admin"]
    assert {} not in admin["from"]


def test_every_dashboard_and_alert_is_in_the_chart(rendered: dict[str, Any]) -> None:
    maps = [
        thing
        for thing in things(rendered, "cluster-full", "ConfigMap")
        if "grafana_dashboard" in thing["metadata"].get("labels", {})
    ]
    files = sorted((CHART / "files" / "dashboards").glob("*.json"))
    assert sorted(name for t in maps for name in t["data"]) == [file.name for file in files]
    for found in maps:
        ((name, content),) = found["data"].items()
        assert content.strip() == (CHART / "files" / "dashboards" / name).read_text().strip()
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert found["metadata"]["annotations"]["folder"] == "Ostraka"
    (rule,) = things(rendered, "cluster-full", "PrometheusRule")
    for thing in [rule, *things(rendered, "cluster-full", "ServiceMonitor")]:
        assert thing["metadata"]["labels"]["release"] == "prometheus"
    for group in rule["spec"]["groups"]:
        for alert in group["rules"]:
            url = alert["annotations"]["runbook_url"]
            assert url.startswith("https://wiki.example.org/runbooks/")


def test_the_notes_name_secrets_and_services_that_exist(rendered: dict[str, Any]) -> None:
    for name in ACCEPTED:
        notes = rendered[name]["notes"]
        prefix = "jar" if name == "cluster-small" else "pots-ostraka"
        assert f"service/{prefix} " in notes
        wanted = "root-keys" if "rootCredentials" in ACCEPTED[name] else f"{prefix}-root"
        assert f"get secret {wanted} " in notes
        assert "<no value>" not in notes


def command_of(*path: str) -> Any:
    """A command of the program as click sees it; None where it has no such command."""
    from ops.admin_cli import admin
    from ops.cli import app

    found: Any = typer.main.get_command(admin if path[0] == "admin" else app)
    for name in path[1:] if path[0] == "admin" else path:
        found = found.commands.get(name)
        if found is None:
            return None
    return found


@pytest.mark.parametrize("component", ["store", "gateway", "node", "keeper", "init"])
def test_the_arguments_of_every_container_are_understood(
    rendered: dict[str, Any], component: str
) -> None:
    """Parsed by the program's own parser: an option that it does not have is an error here."""
    path = {"store": ("serve",), "init": ("admin", "init")}.get(component, (component,))
    command = command_of(*path)
    if command is None:
        pytest.skip(f"`ostraka {' '.join(path)}` is not offered yet")
    seen = 0
    for name in ACCEPTED:
        for thing in things(rendered, name):
            if thing["kind"] not in ("Deployment", "StatefulSet", "Job"):
                continue
            for container in pod_of(thing)["containers"]:
                if container["name"] != component:
                    continue
                assert container["args"][: len(path)] == list(path)
                arguments = container["args"][len(path) :]
                if component == "node" and "command" in container:
                    assert '"$@" --zone "$(cat' in container["command"][2]
                    arguments += ["--zone", "cellar"]
                command.make_context(path[-1], arguments)
                seen += 1
    assert seen >= 2


def test_the_program_knows_every_variable_that_it_is_given(rendered: dict[str, Any]) -> None:
    """An unknown name that begins like ours is refused at start."""
    source = (CHART.parents[1] / "ops" / "config.py").read_text()
    for name, pod in pods(rendered):
        for container in own_containers(pod):
            for entry in container.get("env", []):
                known = not entry["name"].startswith("OSTRAKA_") or f'"{entry["name"]}"' in source
                assert known, (name, entry["name"])


def test_generated_files_are_fresh() -> None:
    for path, content in generate.generated().items():
        assert path.read_text() == content, f"run `python -m tests.helm.generate` for {path.name}"


def test_every_value_is_documented_and_used() -> None:
    documented = {value.name for value in generate.values()}
    used = "\n".join(
        path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file()
    )
    for name in documented:
        top, _, rest = name.partition(".")
        assert top in used
        assert not rest or rest.rpartition(".")[2] in used, name

    def leaves(prefix: str, node: dict[str, Any]) -> Iterator[str]:
        for key, value in node["properties"].items():
            if value.get("properties"):
                yield from leaves(f"{prefix}{key}.", value)
            else:
                yield f"{prefix}{key}"

    schema = generate.schema()
    undocumented = {
        leaf
        for leaf in leaves("", schema)
        if leaf not in documented and leaf.rpartition(".")[0] not in documented and leaf != "global"
    }
    assert undocumented == set()
