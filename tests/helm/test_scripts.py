"""The scripts that the chart's jobs and init containers run, run against the real thing."""

import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.functional.conftest import error_of
from tests.functional.store_process import CLEAN_ENVIRONMENT, StoreProcess
from tests.helm.certificate import make_certificate
from tests.waiting import eventually

FILES = Path(__file__).parents[2] / "helm" / "ostraka" / "files"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::public/*",
        }
    ],
}
WANTED: dict[str, list[dict[str, Any]]] = {
    "accounts": [{"name": "loki", "email": "loki@example.org"}, {"name": "velero"}],
    "buckets": [
        {"name": "logs", "account": "loki"},
        {"name": "backups", "account": "velero", "versioning": True},
        {"name": "public", "policy": POLICY},
    ],
}


def may(action: str) -> dict[str, Any]:
    """A policy of a user or group."""
    statement = {"Effect": "Allow", "Action": f"s3:{action}", "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def lets(call: Any, **arguments: Any) -> bool:
    """Whether the policies of now let that be done."""
    try:
        call(**arguments)
    except ClientError:
        return False
    return True


def run(script: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(FILES / script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**CLEAN_ENVIRONMENT, **environment},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    running = StoreProcess(
        tmp_path_factory.mktemp("store") / "data", options=("--workers", "1", "--drives", "3")
    )
    try:
        yield running.start()
    finally:
        running.kill()


def environment_of(store: StoreProcess) -> dict[str, str]:
    access_key, secret_key = store.credentials
    return {
        "OSTRAKA_ROOT_ACCESS_KEY": access_key,
        "OSTRAKA_ROOT_SECRET_KEY": secret_key,
        "S3_ENDPOINT": store.endpoint,
        "ADMIN_ENDPOINT": store.admin_url,
        "REGION": "us-east-1",
    }


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The accounts' secrets as Kubernetes mounts them."""
    for number, account in enumerate(WANTED["accounts"]):
        folder = tmp_path / str(account["name"])
        folder.mkdir()
        (folder / "access-key").write_text(f"ACCESSKEY{number}")
        (folder / "secret-key").write_text(f"a-very-secret-key-{number}")
    return tmp_path


def test_provisioning_makes_what_is_missing_and_nothing_twice(
    store: StoreProcess, keys: Path
) -> None:
    document = keys / "wanted.json"
    document.write_text(json.dumps(WANTED))
    environment = {**environment_of(store), "ACCOUNTS_FOLDER": str(keys)}
    first = run("provision.py", str(document), **environment)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count(": made") == 5
    again = run("provision.py", str(document), **environment)
    assert again.returncode == 0, again.stderr
    assert ": made" not in again.stdout
    assert again.stdout.count(": is there") == 5

    loki = store.client("ACCESSKEY0", "a-very-secret-key-0")
    loki.put_object(Bucket="logs", Key="k", Body=b"x")
    assert [bucket["Name"] for bucket in loki.list_buckets()["Buckets"]] == ["logs"]
    velero = store.client("ACCESSKEY1", "a-very-secret-key-1")
    assert velero.get_bucket_versioning(Bucket="backups")["Status"] == "Enabled"
    assert json.loads(store.client().get_bucket_policy(Bucket="public")["Policy"]) == POLICY
    code, _ = error_of(loki.put_object, Bucket="backups", Key="k", Body=b"x")
    assert code == "AccessDenied"


def test_users_groups_and_policies_are_made_once_and_policies_follow(
    store: StoreProcess, tmp_path: Path
) -> None:
    """Users of the store's root account and of one of the list; what is no longer listed stays."""
    files = (
        tmp_path / "accounts" / "mimir",
        tmp_path / "users/mimir/ann",
        tmp_path / "users/root/ann",
    )
    for number, folder in enumerate(files):
        folder.mkdir(parents=True)
        (folder / "access-key").write_text(f"PROVISIONED{number}")
        (folder / "secret-key").write_text(f"a-very-secret-key-{number}")
    environment = {
        **environment_of(store),
        "ACCOUNTS_FOLDER": str(tmp_path / "accounts"),
        "USERS_FOLDER": str(tmp_path / "users"),
    }
    document = tmp_path / "wanted.json"
    ann: dict[str, Any] = {"name": "ann", "account": "mimir", "groups": ["team"]}
    wanted = {
        "accounts": [{"name": "mimir"}],
        "groups": [{"name": "team", "account": "mimir", "policies": {"list": may("ListBucket")}}],
        "users": [ann | {"policies": {"own": may("PutObject")}}, {"name": "ann"}],
        "buckets": [{"name": "blocks", "account": "mimir"}],
    }

    def provision() -> str:
        document.write_text(json.dumps(wanted))
        done = run("provision.py", str(document), **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = provision()
    assert [first.count(words) for words in (": made", " set", "put into", "has the access")] == [
        5, 2, 1, 2,
    ]  # fmt: skip
    again = provision().splitlines()
    assert [line for line in again if not line.endswith(": is there")] == []
    user = store.client("PROVISIONED1", "a-very-secret-key-1")
    user.put_object(Bucket="blocks", Key="k", Body=b"x")
    assert user.list_objects_v2(Bucket="blocks")["KeyCount"] == 1
    assert error_of(user.get_object, Bucket="blocks", Key="k") == ("AccessDenied", 403)
    other = store.client("PROVISIONED2", "a-very-secret-key-2")
    assert error_of(other.list_objects_v2, Bucket="blocks") == ("AccessDenied", 403)

    wanted["users"] = [{"name": "ann", "account": "mimir", "policies": {"own": may("GetObject")}}]
    assert provision().count(" set") == 1
    eventually(lambda: lets(user.get_object, Bucket="blocks", Key="k"), 20)
    assert error_of(user.put_object, Bucket="blocks", Key="k", Body=b"x") == ("AccessDenied", 403)
    assert user.list_objects_v2(Bucket="blocks")["KeyCount"] == 1, "still of the team"
    code, _ = error_of(other.list_objects_v2, Bucket="blocks")
    assert code == "AccessDenied", "the key of a user who is no longer listed still signs"


def test_what_iam_refuses_is_told_with_the_name_of_the_user(
    store: StoreProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "root" / "bob"
    folder.mkdir(parents=True)
    document = tmp_path / "wanted.json"
    environment = {**environment_of(store), "USERS_FOLDER": str(tmp_path)}

    def provision(secret: str, policy: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
        (folder / "access-key").write_text("BOBS_KEY")
        (folder / "secret-key").write_text(secret)
        users = [{"name": "bob", "policies": {"own": policy}}]
        document.write_text(json.dumps({"accounts": [], "users": users, "buckets": []}))
        return run("provision.py", str(document), **environment)

    assert provision("a-very-secret-key", may("GetObject")).returncode == 0
    refused = provision("another-secret-key", may("GetObject"))
    assert refused.returncode != 0
    assert refused.stderr.startswith(
        "user bob: EntityAlreadyExists: The Access Key with id BOBS_KEY"
    )
    assert "another-secret-key" not in refused.stderr
    refused = provision("a-very-secret-key", {"Statement": [{"Effect": "Perhaps"}]})
    assert refused.stderr.startswith("user bob: MalformedPolicyDocument: ")


def test_an_account_with_other_keys_is_left_alone(store: StoreProcess, keys: Path) -> None:
    """A secret that was lost and made anew must not pass unnoticed."""
    document = keys / "wanted.json"
    document.write_text(json.dumps({"accounts": [{"name": "thanos"}], "buckets": []}))
    (keys / "thanos").mkdir()
    (keys / "thanos" / "access-key").write_text("THANOS1")
    (keys / "thanos" / "secret-key").write_text("a-very-secret-key")
    environment = {**environment_of(store), "ACCOUNTS_FOLDER": str(keys)}
    assert run("provision.py", str(document), **environment).returncode == 0
    (keys / "thanos" / "access-key").write_text("THANOS2")
    refused = run("provision.py", str(document), **environment)
    assert refused.returncode != 0
    assert "exists with another access key" in refused.stderr


def test_provisioning_says_when_nobody_answers(tmp_path: Path, store: StoreProcess) -> None:
    document = tmp_path / "wanted.json"
    document.write_text(json.dumps({"accounts": None, "buckets": None}))
    environment = {**environment_of(store), "ADMIN_ENDPOINT": "http://127.0.0.1:9"}
    refused = run("provision.py", str(document), **environment, WAIT_SECONDS="0")
    assert refused.returncode != 0
    assert "is not ready" in refused.stderr


def test_the_round_trip_leaves_nothing_behind(store: StoreProcess) -> None:
    before = [bucket["Name"] for bucket in store.client().list_buckets()["Buckets"]]
    done = run("round_trip.py", **environment_of(store))
    assert done.returncode == 0, done.stderr
    assert "3000000 bytes: written, read, listed, deleted" in done.stdout
    assert [bucket["Name"] for bucket in store.client().list_buckets()["Buckets"]] == before


def test_provisioning_and_the_round_trip_work_over_tls(tmp_path: Path) -> None:
    """Both ports have the certificate; its authority is the file that the chart mounts."""
    certificate, key = make_certificate(tmp_path)
    store = StoreProcess(
        tmp_path / "data",
        options=(
            "--workers", "1", "--drives", "1",
            "--tls-cert", str(certificate), "--tls-key", str(key),
        ),
    )  # fmt: skip
    document = tmp_path / "wanted.json"
    document.write_text(json.dumps({"accounts": [], "buckets": [{"name": "over-tls"}]}))
    try:
        store.start()
        assert store.admin_url.startswith("https://")
        environment = environment_of(store)
        done = run("provision.py", str(document), **environment, CA_FILE=str(certificate))
        assert done.returncode == 0, done.stderr
        done = run("round_trip.py", **environment, CA_FILE=str(certificate))
        assert done.returncode == 0, done.stderr
        stranger = run(
            "provision.py", str(document), **environment, CA_FILE="/none", WAIT_SECONDS="0"
        )
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.stderr
    finally:
        store.kill()


def test_the_newest_snapshots_are_kept(tmp_path: Path) -> None:
    for day in range(1, 6):
        (tmp_path / f"etcd-2026010{day}T000000Z.db").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("not ours")
    (tmp_path / "new.db").write_bytes(b"new")
    done = run("snapshots.py", str(tmp_path), "3")
    assert done.returncode == 0, done.stderr
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[:2] == ["etcd-20260104T000000Z.db", "etcd-20260105T000000Z.db"]
    assert (tmp_path / left[2]).read_bytes() == b"new"
    assert left[3:] == ["notes.txt"]


def test_an_empty_snapshot_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "etcd-20260101T000000Z.db").write_bytes(b"old")
    (tmp_path / "new.db").touch()
    assert run("snapshots.py", str(tmp_path), "1").returncode != 0
    assert (tmp_path / "etcd-20260101T000000Z.db").exists()


class ApiServer(http.server.BaseHTTPRequestHandler):
    """As much of Kubernetes as the init container asks."""

    def do_GET(self) -> None:
        assert self.headers["Authorization"] == "Bearer token-of-the-pod"
        labels = {"topology.kubernetes.io/zone": "cellar"} if self.path.endswith("/n1") else {}
        found = self.path.startswith("/api/v1/nodes/")
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"metadata": {"labels": labels}}).encode())

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server with a certificate that the pod's identity trusts; the pod's environment."""
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "token").write_text("token-of-the-pod\n")
    server = http.server.HTTPServer(("127.0.0.1", 0), ApiServer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(server.server_address[1]),
        "IDENTITY_FOLDER": str(tmp_path),
    }
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("node", "zone"), [("n1", "cellar"), ("n2", "default")])
def test_the_zone_comes_from_the_label_of_the_machine(
    api: dict[str, str], tmp_path: Path, node: str, zone: str
) -> None:
    """A machine without the label is in the zone that the program takes by default."""
    file = tmp_path / "zone"
    done = run("zone.py", "topology.kubernetes.io/zone", str(file), **api, NODE_NAME=node)
    assert done.returncode == 0, done.stderr
    assert file.read_text() == zone
    assert os.path.getsize(file) > 0
