"""Files a snapshot that etcdctl has just written under its time, and removes the oldest.

Usage: snapshots.py FOLDER KEEP
"""

import os
import re
import sys
import time
from pathlib import Path

NAME = re.compile(r"etcd-\d{8}T\d{6}Z\.db")


def file_snapshot(folder: Path, keep: int, now: float) -> Path:
    """Name FOLDER/new.db for its time, make it durable, and keep the newest KEEP."""
    new = folder / "new.db"
    if new.stat().st_size == 0:
        raise SystemExit("the snapshot is empty")
    descriptor = os.open(new, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    named = folder / time.strftime("etcd-%Y%m%dT%H%M%SZ.db", time.gmtime(now))
    new.rename(named)
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    filed = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    for old in filed[:-keep]:
        old.unlink()
    return named


if __name__ == "__main__":
    print(file_snapshot(Path(sys.argv[1]), int(sys.argv[2]), time.time()))
