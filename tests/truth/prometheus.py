"""The real Prometheus for tests: where its binaries come from, and one server that scrapes."""

import fcntl
import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.contract.etcd_process import free_ports

FETCH_SECONDS_MAX = 120


class PrometheusMissing(Exception):
    """No binary, and none could be fetched; the message says why."""


def binary(name: str) -> str:
    """`prometheus` or `promtool`: on the PATH, or from Debian's package, unpacked in a cache.

    Raises PrometheusMissing.
    """
    if found := shutil.which(name):
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ostraka-prometheus"
    path = cache / "usr" / "bin" / name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _fetch(cache)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise PrometheusMissing(f"no {name} here, and apt cannot fetch it: {said[-1]}") from error
    return str(path)


def _fetch(cache: Path) -> None:
    def run(*command: str) -> None:
        subprocess.run(
            command,
            cwd=cache,
            check=True,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS_MAX,
        )

    try:
        run("apt-get", "download", "prometheus")
    except subprocess.CalledProcessError:
        run("apt-get", "update", "--quiet")
        run("apt-get", "download", "prometheus")
    (package,) = cache.glob("prometheus_*.deb")
    run("dpkg-deb", "--extract", str(package), str(cache))
    package.unlink()


@dataclass
class Prometheus:
    """One server. `targets`: HOST:PORT of each endpoint, all of one job."""

    folder: Path
    targets: list[str]
    rules: Path
    job: str = "ostraka"
    interval_seconds: float = 0.5
    process: subprocess.Popen[bytes] | None = None
    url: str = ""
    _log: Path = field(init=False)

    def start(self) -> "Prometheus":
        """Start it and wait until it answers."""
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        interval = f"{int(self.interval_seconds * 1000)}ms"
        config = {
            "global": {"scrape_interval": interval, "evaluation_interval": interval},
            "rule_files": [str(self.rules)],
            "scrape_configs": [
                {"job_name": self.job, "static_configs": [{"targets": self.targets}]}
            ],
        }
        file = self.folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        self._log = self.folder / "prometheus.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    binary("prometheus"), f"--config.file={file}",
                    f"--storage.tsdb.path={self.folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        end = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                    return self
            except OSError:
                assert self.process.poll() is None, self._log.read_text()
                assert time.monotonic() < end, self._log.read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series now."""
        found = self._get("/api/v1/query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def history(self, expression: str, seconds: float) -> list[tuple[dict[str, str], list[Any]]]:
        """Labels and [time, value] pairs of every series over the last seconds."""
        now = time.time()
        found = self._get(
            "/api/v1/query_range",
            query=expression,
            start=str(now - seconds),
            end=str(now),
            step=str(max(0.5, seconds / 300)),
        )["result"]
        return [(series["metric"], series["values"]) for series in found]

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = self._get("/api/v1/alerts")["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}

    def wait_until(self, expression: str, seconds: float = 30) -> None:
        """Until the expression returns something."""
        end = time.monotonic() + seconds
        while not self.query(expression):
            assert time.monotonic() < end, f"{expression} stays empty"
            time.sleep(0.2)

    def wait_for(self, name: str, *, fires: bool, seconds: float = 30) -> float:
        """Until the alert fires, or does no more; how long that took."""
        start = time.monotonic()
        while (name in self.firing()) is not fires:
            word = "fire" if fires else "clear"
            assert time.monotonic() - start < seconds, f"{name} does not {word}: {self.firing()}"
            time.sleep(0.2)
        return time.monotonic() - start
