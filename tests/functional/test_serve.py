"""`ostraka serve` as a person meets it: starting, stopping, refusals, ports, TLS, accounts."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.functional.conftest import error_of
from tests.functional.store_process import CLEAN_ENVIRONMENT, StoreProcess, served
from tests.waiting import eventually


def test_a_first_start_prints_credentials_once_and_a_second_goes_on(directory: Path) -> None:
    store = StoreProcess(directory)
    try:
        store.start()
        access_key, secret_key = store.credentials
        assert access_key in store.output
        assert secret_key in store.output
        assert stat.S_IMODE((directory / "credentials.json").stat().st_mode) == 0o600
        s3 = store.client()
        s3.create_bucket(Bucket="kept")
        s3.put_object(Bucket="kept", Key="a", Body=b"body")
        assert store.stop() == 0
        store.start()
        assert secret_key not in store.output
        assert f"the secret key is in {directory / 'credentials.json'}" in store.output
        assert store.client().get_object(Bucket="kept", Key="a")["Body"].read() == b"body"
        assert store.stop() == 0
    finally:
        store.kill()


def test_packages_in_the_folder_where_it_is_started_are_not_taken_for_ours(tmp_path: Path) -> None:
    for name in ("ops", "gateway", "storage_node", "placement"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('somebody else')")
    store = StoreProcess(tmp_path / "data", started_in=tmp_path)
    try:
        store.start()
        store.client().create_bucket(Bucket="ours")
        assert store.stop() == 0
    finally:
        store.kill()


def test_a_folder_in_use_is_refused_in_one_sentence(store: StoreProcess) -> None:
    status, output = StoreProcess(store.directory).run_to_end()
    assert status == 1
    assert "in use by another ostraka process" in output
    assert "Traceback" not in output


def test_a_port_in_use_is_refused_in_one_sentence(store: StoreProcess, tmp_path: Path) -> None:
    port = store.endpoint.rpartition(":")[2]
    status, output = StoreProcess(tmp_path / "other", options=("--port", port)).run_to_end()
    assert status == 1
    assert f"port {port}: Address already in use" in output
    assert "Traceback" not in output


def test_unknown_variables_and_options_are_errors(directory: Path) -> None:
    status, output = StoreProcess(directory, environment={"OSTRAKA_PROT": "1"}).run_to_end()
    assert status == 2
    assert "OSTRAKA_PROT" in output
    status, output = StoreProcess(directory, options=("--prot", "1")).run_to_end()
    assert status == 2
    assert not directory.exists()


def test_credentials_of_the_environment_are_used_and_not_written(directory: Path) -> None:
    environment = {
        "OSTRAKA_ROOT_ACCESS_KEY": "ROOTACCESSKEY",
        "OSTRAKA_ROOT_SECRET_KEY": "a-secret-of-the-test",
    }
    store = StoreProcess(directory, ("--workers", "1"), environment)
    try:
        store.start()
        assert "a-secret-of-the-test" not in store.output
        assert "credentials.json" not in store.output
        assert not (directory / "credentials.json").exists()
        assert store.client().list_buckets()["Buckets"] == []
    finally:
        store.kill()
    for path in directory.rglob("*"):
        if path.is_file():
            assert b"a-secret-of-the-test" not in path.read_bytes(), path


@pytest.fixture(scope="module")
def stopped_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store that was started once and stopped: to be copied, not to be changed."""
    folder = tmp_path_factory.mktemp("stopped") / "data"
    with served(folder, ("--workers", "1")):
        pass
    return folder


@pytest.fixture
def stopped(stopped_store: Path, directory: Path) -> StoreProcess:
    """A copy of it, which the test may damage."""
    shutil.copytree(stopped_store, directory, ignore=shutil.ignore_patterns("run"))
    return StoreProcess(directory)


def test_swapped_drives_are_refused(stopped: StoreProcess) -> None:
    directory = stopped.directory
    (directory / "drive1").rename(directory / "x")
    (directory / "drive2").rename(directory / "drive1")
    (directory / "x").rename(directory / "drive2")
    status, output = stopped.run_to_end()
    assert status == 1
    assert "drive1" in output
    assert "Traceback" not in output


def test_a_foreign_drive_is_refused(stopped: StoreProcess, tmp_path: Path) -> None:
    with served(tmp_path / "other", ("--workers", "1", "--drives", "3")) as other:
        pass
    shutil.rmtree(stopped.directory / "drive3")
    shutil.copytree(other.directory / "drive3", stopped.directory / "drive3")
    status, output = stopped.run_to_end()
    assert status == 1
    assert "drive3" in output
    assert "Traceback" not in output


def test_more_drives_missing_than_the_scheme_tolerates_are_refused(stopped: StoreProcess) -> None:
    for number in (1, 2, 3):
        shutil.rmtree(stopped.directory / f"drive{number}")
    status, output = stopped.run_to_end()
    assert status == 1
    assert "missing" in output
    assert "Traceback" not in output


def test_given_drives_are_not_adopted_when_they_come_back_empty(tmp_path: Path) -> None:
    mounts = [tmp_path / f"mount{n}" for n in range(3)]
    for mount in mounts:
        mount.mkdir()
    options = tuple(word for mount in mounts for word in ("--drive", str(mount)))
    store = StoreProcess(tmp_path / "data", ("--workers", "1", *options))
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="k", Body=b"x" * 100_000)
        store.stop()
        shutil.rmtree(mounts[1])
        mounts[1].mkdir()
        store.start()
        body = store.client().get_object(Bucket="bucket", Key="k")["Body"].read()
        assert body == b"x" * 100_000
        time.sleep(3)
        states = [drive["state"] for drive in store.admin("status")["drives"]]
        assert states.count("up") == 2
        assert list(mounts[1].iterdir()) == []
    finally:
        store.kill()


def test_drives_can_be_added_later(tmp_path: Path) -> None:
    store = StoreProcess(tmp_path / "data", ("--drives", "3", "--workers", "1"))
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket="bucket")
        bodies = {f"k{n}": bytes([n]) * (n * 40_000) for n in range(12)}
        for key, body in bodies.items():
            s3.put_object(Bucket="bucket", Key=key, Body=body)
        store.stop()
        store.options = ("--drives", "6", "--workers", "1")
        store.start()
        s3 = store.client()
        for key, body in bodies.items():
            assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == body
        s3.put_object(Bucket="bucket", Key="new", Body=b"n" * 500_000)
        assert s3.get_object(Bucket="bucket", Key="new")["Body"].read() == b"n" * 500_000
        assert len(store.admin("status")["drives"]) == 6
    finally:
        store.kill()


def test_health_and_metrics_are_open_and_status_is_not(store: StoreProcess, s3: Any) -> None:
    s3.list_buckets()
    for path in ("/health/live", "/health/ready"):
        with urllib.request.urlopen(store.admin_url + path, timeout=10) as answer:
            assert answer.status == 200
    metrics = store.metrics()
    assert metrics['ostraka_requests_total{code="200",operation="ListBuckets"}'] >= 1
    assert metrics["ostraka_internal_errors_total"] == 0
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(store.admin_url + "/api/v1/status", timeout=10)
    assert refused.value.code == 403
    refused.value.close()
    status = store.admin("status")
    assert status["state"] == "ok"
    assert status["tolerance"] == 2
    assert len(status["drives"]) == 6


def test_accounts_own_their_buckets(
    store: StoreProcess, s3: Any, other_account: dict[str, str], other_s3: Any, bucket: str
) -> None:
    assert len(other_account["account_id"]) == 12
    assert other_account["account_id"].isdigit()
    assert len(bytes.fromhex(other_account["canonical_id"])) == 32
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for call, arguments in (
        (other_s3.get_object, {"Key": "k"}),
        (other_s3.put_object, {"Key": "k", "Body": b"y"}),
        (other_s3.list_objects_v2, {}),
        (other_s3.delete_object, {"Key": "k"}),
    ):
        assert error_of(call, Bucket=bucket, **arguments) == ("AccessDenied", 403)
    assert bucket not in [b["Name"] for b in other_s3.list_buckets()["Buckets"]]
    assert error_of(other_s3.create_bucket, Bucket=bucket) == ("BucketAlreadyExists", 409)
    names = [account["name"] for account in store.admin("account", "list")]
    assert "other" in names


def test_an_account_is_deleted_only_without_buckets(store: StoreProcess) -> None:
    account = store.admin("account", "create", "leaver")
    s3 = store.client(account["access_key"], account["secret_key"])
    s3.create_bucket(Bucket="leavers")
    with pytest.raises(AssertionError, match="leaver"):
        store.admin("account", "delete", "leaver")
    s3.delete_bucket(Bucket="leavers")
    store.admin("account", "delete", "leaver")
    deadline = time.monotonic() + 5
    while True:
        try:
            s3.list_buckets()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert code == "InvalidAccessKeyId"


def test_a_killed_worker_and_a_killed_storage_process_are_replaced(directory: Path) -> None:
    store = StoreProcess(directory)
    try:
        store.start()
        s3 = store.client(retries={"total_max_attempts": 8, "mode": "standard"})
        s3.create_bucket(Bucket="bucket")
        for role in ("worker", "storage", "keeper"):
            (pid, *_) = processes_of(store, role)
            os.kill(pid, signal.SIGKILL)
            s3.put_object(Bucket="bucket", Key=role, Body=role.encode() * 1000)
            got = s3.get_object(Bucket="bucket", Key=role)["Body"].read()
            assert got == role.encode() * 1000
        assert store.stop() == 0
    finally:
        store.kill()


def processes_of(store: StoreProcess, role: str) -> list[int]:
    """Ids of the store's processes of that role."""
    assert store.process is not None
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == store.process.pid and role.encode() in words:
                found.append(int(entry.name))
    return sorted(found)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_serves_both_addressing_styles(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    store = StoreProcess(
        tmp_path / "data",
        (
            "--tls-cert",
            str(certificate),
            "--tls-key",
            str(key),
            "--domain",
            "localhost",
            "--workers",
            "1",
        ),
    )
    try:
        store.start()
        assert store.endpoint.startswith("https://")
        s3 = store.client()
        s3.create_bucket(Bucket="tls")
        s3.put_object(Bucket="tls", Key="k", Body=b"x" * 70_000)
        assert s3.get_object(Bucket="tls", Key="k")["Body"].read() == b"x" * 70_000
    finally:
        store.kill()


def _self_signed(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True,
        capture_output=True,
        env=CLEAN_ENVIRONMENT,
    )  # fmt: skip
    return certificate, key


def test_virtual_hosts_and_an_access_log_that_is_reopened(tmp_path: Path) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    options = ("--domain", "s3.test", "--access-log", str(path), "--workers", "3", "--drives", "3")
    with served(tmp_path / "data", options) as store:
        assert _read_by_virtual_host(store) == b"by host"
        path.rename(old)
        assert store.process is not None
        store.process.send_signal(signal.SIGHUP)
        eventually(path.exists, 10)
        time.sleep(0.5)
        for _ in range(30):  # through all workers
            store.client().head_bucket(Bucket="vhost")
    before, after = old.read_text(), path.read_text()
    for operation in ("CreateBucket", "PutObject", "GetObject"):
        assert before.count(f" {operation} ") == 1
    assert after.count(" HeadBucket ") == 30
    assert store.credentials[1] not in before + after


def _read_by_virtual_host(store: StoreProcess) -> bytes:
    """An object of a bucket that the Host header names."""
    s3 = store.client()
    s3.create_bucket(Bucket="vhost")
    s3.put_object(Bucket="vhost", Key="a/b", Body=b"by host")
    port = int(store.endpoint.rpartition(":")[2])
    access_key, secret_key = store.credentials
    presigned = boto3.client(
        "s3",
        endpoint_url=f"http://s3.test:{port}",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "virtual"}, signature_version="s3v4"),
    ).generate_presigned_url("get_object", Params={"Bucket": "vhost", "Key": "a/b"})
    assert presigned.startswith(f"http://vhost.s3.test:{port}/a/b?")
    request = urllib.request.Request(
        presigned.replace("vhost.s3.test", "127.0.0.1"),
        headers={"Host": f"vhost.s3.test:{port}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def test_sigterm_lets_a_running_upload_finish(directory: Path) -> None:
    store = StoreProcess(directory)
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket="drain")
        url = s3.generate_presigned_url("put_object", Params={"Bucket": "drain", "Key": "slow"})
        host, port = "127.0.0.1", int(store.endpoint.rpartition(":")[2])
        with socket.create_connection((host, port)) as connection:
            target = url[len(store.endpoint) :]
            head = f"PUT {target} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 20\r\n\r\n"
            connection.sendall(head.encode() + b"0123456789")
            time.sleep(0.5)
            assert store.process is not None
            store.process.terminate()
            time.sleep(0.5)
            connection.sendall(b"0123456789")
            connection.settimeout(10)
            assert b" 200 " in connection.recv(4096).split(b"\r\n")[0]
        assert store.process.wait(30) == 0
        store.kill()
        store.start()
        got = store.client().get_object(Bucket="drain", Key="slow")["Body"].read()
        assert got == b"0123456789" * 2
    finally:
        store.kill()


def test_sighup_without_an_access_log_stops_the_store_in_order(tmp_path: Path) -> None:
    store = StoreProcess(tmp_path / "data", options=("--drives", "1", "--workers", "1"))
    try:
        store.start()
        assert store.process is not None
        store.process.send_signal(signal.SIGHUP)
        assert store.process.wait(30) == 0
    finally:
        store.kill()
