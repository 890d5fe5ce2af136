"""A store whose disk has not a byte left: it starts, reads, deletes, and writes again with room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.functional.store_process import StoreProcess
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

DISK_SIZE_BYTES = 256 << 20
BUCKET = "full-disk"


def run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(params=["ext4", "tmpfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small filesystem of its own; only root may mount one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if request.param == "tmpfs":
        mounted = run("mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE_BYTES}", "tmpfs", str(mount))
    else:
        image = tmp_path / "image"
        image.touch()
        os.truncate(image, DISK_SIZE_BYTES)
        mounted = run("mkfs.ext4", "-q", "-m", "0", str(image)) and run(
            "mount", "-o", "loop", str(image), str(mount)
        )
    if not mounted:
        pytest.skip("a filesystem cannot be mounted here")
    try:
        yield mount
    finally:
        run("umount", "-l", str(mount))


def fill(mount: Path) -> Path:
    """To the last byte, by somebody else's file."""
    path = mount / "others"
    with path.open("ab", buffering=0) as file:
        size = os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize
        while size:
            at = file.seek(0, os.SEEK_END)
            try:
                os.posix_fallocate(file.fileno(), at, size)
            except OSError:
                size //= 2
    assert os.statvfs(mount).f_bavail == 0
    return path


def test_a_store_on_a_disk_without_a_free_byte_starts_reads_and_deletes(disk: Path) -> None:
    store = StoreProcess(disk / "data", options=("--workers", "1", "--drives", "3"))
    small, large = os.urandom(2_000), os.urandom(3 << 20)
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket=BUCKET)
        for number in range(30):
            s3.put_object(Bucket=BUCKET, Key=f"small{number}", Body=small)
        for number in range(10):
            s3.put_object(Bucket=BUCKET, Key=f"large{number}", Body=large)
        s3.close()
        store.stop()
        others = fill(disk)
        for ending in (store.stop, store.kill):  # in good order, and by SIGKILL
            store.start()
            s3 = store.client()
            assert s3.get_object(Bucket=BUCKET, Key="small1")["Body"].read() == small
            assert s3.get_object(Bucket=BUCKET, Key="large1")["Body"].read() == large
            assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 40
            for body in (small, large):
                with pytest.raises(ClientError) as refused:
                    s3.put_object(Bucket=BUCKET, Key="more", Body=body)
                assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
            s3.close()
            ending()
        store.start()
        s3 = store.client()
        before = os.statvfs(disk).f_bavail
        for number in range(2, 10):
            s3.delete_object(Bucket=BUCKET, Key=f"large{number}")
        left = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
        assert len([key for key in left if key.startswith("large")]) == 2
        # The keeper gives the space of what was deleted back by itself.
        eventually(lambda: os.statvfs(disk).f_bavail > before, 90)
        others.unlink()

        def writes() -> bool:
            try:
                s3.put_object(Bucket=BUCKET, Key="more", Body=large)
            except ClientError:
                return False
            return True

        eventually(writes, 60)
        assert s3.get_object(Bucket=BUCKET, Key="more")["Body"].read() == large
        assert s3.get_object(Bucket=BUCKET, Key="small1")["Body"].read() == small
        s3.close()
    finally:
        store.kill()
