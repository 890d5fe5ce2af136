"""What a store's processes use: CPU seconds and proportional memory, through /proc."""

import os
import subprocess
import threading
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the whole tree, ended children included."""
    total = 0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def proportional_bytes(root: int) -> int:
    """Proportional set size of the tree: shared pages count once in all."""
    total = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def disk_bytes(folder: Path) -> int:
    """Blocks in use below a folder."""
    os.sync()
    done = subprocess.run(
        ["du", "-s", "--block-size=1", str(folder)], capture_output=True, text=True, check=False
    )
    return int(done.stdout.split()[0])


class PeakMemory(threading.Thread):
    """Samples the proportional set size twice a second."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._end = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._end.wait(0.5):
            self.peak_bytes = max(self.peak_bytes, proportional_bytes(self._root))

    def stop(self) -> int:
        """End sampling; the highest sum seen."""
        self._end.set()
        self.join()
        return self.peak_bytes
