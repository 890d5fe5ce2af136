"""The real aws CLI, from PyPI, against the store: what a person types on the first day."""

import filecmp
import json
import os
import random
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.functional.store_process import CLEAN_ENVIRONMENT, StoreProcess
from tests.waiting import eventually

Aws = Callable[..., str]


@pytest.fixture
def aws(store: StoreProcess, tmp_path: Path) -> Aws:
    """Run one aws command; its output. It must succeed."""
    access_key, secret_key = store.credentials
    environment = {
        **CLEAN_ENVIRONMENT,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "HOME": str(tmp_path),
    }
    program = Path(sys.executable).with_name("aws")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, str(program), *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def differences(compared: "filecmp.dircmp[str]") -> list[str]:
    """Everything in which two trees differ."""
    found = [*compared.left_only, *compared.right_only, *compared.diff_files]
    for sub in compared.subdirs.values():
        found += differences(sub)
    return found


def source_tree(root: Path, files: int) -> Path:
    """A folder of real files: part of the standard library, empty ones among them."""
    library = Path(sysconfig.get_path("stdlib"))
    chosen = sorted(library.glob("*/*.py"))[:files]
    for file in chosen:
        target = root / file.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    # Clients keep connections, and an answer to an empty upload must not spoil the next one.
    for number in range(20):
        (root / f"empty-{number}").write_bytes(b"")
    return root


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_day_with_the_aws_cli(aws: Aws, tmp_path: Path) -> None:
    aws("s3", "mb", "s3://cli-bucket")
    big = tmp_path / "big.bin"
    big.write_bytes(random.Random(1).randbytes(30_000_000))
    aws("s3", "cp", str(big), "s3://cli-bucket/big.bin", "--no-progress")
    aws("s3", "cp", "s3://cli-bucket/big.bin", str(tmp_path / "back.bin"), "--no-progress")
    assert filecmp.cmp(big, tmp_path / "back.bin", shallow=False)
    tree = source_tree(tmp_path / "tree", 300)
    aws("s3", "sync", str(tree), "s3://cli-bucket/tree", "--no-progress")
    listed = aws("s3", "ls", "--recursive", "s3://cli-bucket/tree/").splitlines()
    assert len(listed) == sum(1 for p in tree.rglob("*") if p.is_file())
    back = tmp_path / "back"
    aws("s3", "sync", "s3://cli-bucket/tree", str(back), "--no-progress")
    assert differences(filecmp.dircmp(tree, back)) == []
    assert aws("s3", "sync", str(tree), "s3://cli-bucket/tree", "--no-progress") == ""
    url = aws("s3", "presign", "s3://cli-bucket/big.bin").strip()
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.read() == big.read_bytes()
    aws("s3", "mv", "s3://cli-bucket/big.bin", "s3://cli-bucket/moved.bin")
    aws("s3", "rm", "--recursive", "s3://cli-bucket")
    aws("s3", "rb", "s3://cli-bucket")
    assert "cli-bucket" not in aws("s3", "ls")


def test_low_level_commands(aws: Aws, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"hello")
    aws("s3api", "create-bucket", "--bucket", "cli-api")
    # Of the algorithms one that Python computes and one that the CLI's C library does.
    for algorithm in ("SHA256", "CRC64NVME"):
        put = aws(
            "s3api", "put-object", "--bucket", "cli-api", "--key", algorithm,
            "--body", str(body), "--checksum-algorithm", algorithm,
        )  # fmt: skip
        assert f"Checksum{algorithm}" in put
        head = aws(
            "s3api", "head-object", "--bucket", "cli-api", "--key", algorithm,
            "--checksum-mode", "ENABLED",
        )  # fmt: skip
        assert f"Checksum{algorithm}" in head
        aws("s3api", "delete-object", "--bucket", "cli-api", "--key", algorithm)
    aws("s3api", "delete-bucket", "--bucket", "cli-api")


@pytest.mark.timeout(600)
def test_storage_classes(store: StoreProcess, s3: Any, aws: Aws, tmp_path: Path) -> None:
    store.admin("scheme", "class", "set", "ONEZONE_IA", "3+2")
    aws("s3", "mb", "s3://cli-classes")
    file = tmp_path / "file"
    file.write_bytes(random.Random(3).randbytes(9 << 20))  # in two parts

    def offered() -> bool:
        try:
            s3.put_object(Bucket="cli-classes", Key="k", Body=b"x", StorageClass="ONEZONE_IA")
        except s3.exceptions.ClientError:
            return False  # a worker has not followed yet
        return True

    eventually(lambda: all(offered() for _ in range(10)), 30)

    def storage_class() -> str | None:
        told = json.loads(aws("s3api", "head-object", "--bucket", "cli-classes", "--key", "file"))
        return told.get("StorageClass")  # type: ignore[no-any-return]

    aws("s3", "cp", str(file), "s3://cli-classes/file", "--storage-class", "ONEZONE_IA")
    assert storage_class() == "ONEZONE_IA"
    source = "cli-classes/file"
    copy = ("s3api", "copy-object", "--bucket", "cli-classes", "--key", "file")
    aws(*copy, "--copy-source", source, "--storage-class", "STANDARD")
    assert storage_class() is None
    aws("s3", "cp", f"s3://{source}", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    rule = {
        "ID": "r",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "Transitions": [{"Days": 30, "StorageClass": "ONEZONE_IA"}],
    }
    bucket = ("--bucket", "cli-classes")
    aws(
        *("s3api", "put-bucket-lifecycle-configuration", *bucket, "--lifecycle-configuration"),
        json.dumps({"Rules": [rule]}),
    )
    kept = json.loads(aws("s3api", "get-bucket-lifecycle-configuration", *bucket))
    assert kept["Rules"] == [rule]
