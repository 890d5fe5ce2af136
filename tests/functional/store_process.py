"""A real store for tests: `ostraka serve` as a process group of its own, on free ports."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from typer.testing import CliRunner

CLEAN_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("OSTRAKA_", "AWS_", "S3_"))
}


@dataclass
class StoreProcess:
    """Starts, kills and restarts one store. `options` go to `ostraka serve` as they are."""

    directory: Path
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    started_in: Path | None = None
    """The present folder; None: that of the tests."""
    process: subprocess.Popen[bytes] | None = None
    endpoint: str = ""
    admin_url: str = ""
    output: str = ""

    def start(self, timeout_seconds: float = 60) -> "StoreProcess":
        """Start and wait for the ready line; AssertionError with the output otherwise."""
        port = self.endpoint.rpartition(":")[2] or "0"
        admin = self.admin_url.rpartition(":")[2] or "0"
        self.process = subprocess.Popen(
            [
                sys.executable, "-P", "-c", "from ops.cli import main; main()", "serve",
                str(self.directory), "--port", port, "--admin-port", admin, *self.options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**CLEAN_ENVIRONMENT, **self.environment},
            cwd=self.started_in,
            start_new_session=True,
        )  # fmt: skip
        self.output = ""
        end = time.monotonic() + timeout_seconds
        while "my-bucket" not in self.output:
            assert time.monotonic() < end, f"not ready in time:\n{self.output}"
            self.read(0.2)
            if self.process.poll() is not None:
                self.read(0.2)
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.output}")
        self.endpoint = self._announced(r"^ready (\S+)$")
        self.admin_url = self._announced(r"^admin (\S+)")
        return self

    def _announced(self, pattern: str) -> str:
        found = re.search(pattern, self.output, re.MULTILINE)
        assert found is not None, self.output
        return found[1]

    def read(self, seconds: float) -> None:
        """Take what the store printed."""
        assert self.process is not None
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        ready, _, _ = select.select([descriptor], [], [], seconds)
        if ready:
            self.output += os.read(descriptor, 65536).decode(errors="replace")

    def run_to_end(self, timeout_seconds: float = 30) -> tuple[int, str]:
        """For starts that must be refused: exit status and output."""
        done = subprocess.run(
            [
                sys.executable, "-c", "from ops.cli import main; main()", "serve",
                str(self.directory), "--port", "0", "--admin-port", "0", *self.options,
            ],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            env={**CLEAN_ENVIRONMENT, **self.environment},
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def stop(self, timeout_seconds: float = 45) -> int:
        """SIGTERM and wait; the exit status."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(timeout_seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL the whole process group, as a power cut for processes would."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    @property
    def credentials(self) -> tuple[str, str]:
        """Access key and secret key of root."""
        if "OSTRAKA_ROOT_ACCESS_KEY" in self.environment:
            return (
                self.environment["OSTRAKA_ROOT_ACCESS_KEY"],
                self.environment["OSTRAKA_ROOT_SECRET_KEY"],
            )
        content = json.loads((self.directory / "credentials.json").read_text())
        return content["access_key"], content["secret_key"]

    def client(
        self, access_key: str | None = None, secret_key: str | None = None, **config: Any
    ) -> Any:
        """A boto3 client without retries."""
        root_access, root_secret = self.credentials
        settings = {
            "s3": {"addressing_style": "path"},
            "retries": {"total_max_attempts": 1},
            "signature_version": "s3v4",
            "connect_timeout": 5,
            "read_timeout": 60,
            "max_pool_connections": 64,
            **config,
        }
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=access_key or root_access,
            aws_secret_access_key=secret_key or root_secret,
            region_name="us-east-1",
            config=Config(**settings),
            verify=False,
        )

    def admin(self, *arguments: str) -> Any:
        """Run `ostraka admin … --json` against this store; its decoded answer."""
        done = self._run_admin(*arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments: str) -> str:
        """What `ostraka admin …` says, which this store refuses."""
        done = self._run_admin(*arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stderr

    def _run_admin(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        access_key, secret_key = self.credentials
        return subprocess.run(
            [
                sys.executable, "-c", "from ops.cli import main; main()", "admin",
                *arguments, "--url", self.admin_url,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            env={
                **CLEAN_ENVIRONMENT,
                "OSTRAKA_ROOT_ACCESS_KEY": access_key,
                "OSTRAKA_ROOT_SECRET_KEY": secret_key,
            },
            check=False,
        )  # fmt: skip

    def command(self, *arguments: str) -> Any:
        """The same in this process: quicker, where many commands are to be run."""
        from ops.admin_cli import admin

        where = ("--json", "--url", self.admin_url, "--dir", str(self.directory))
        done = CliRunner().invoke(admin, [*arguments, *where])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels as printed."""
        with urllib.request.urlopen(f"{self.admin_url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}


@contextlib.contextmanager
def served(
    directory: Path, options: tuple[str, ...] = (), environment: dict[str, str] | None = None
) -> Iterator[StoreProcess]:
    """A running store, which must stop in order too."""
    running = StoreProcess(directory, options, environment or {})
    try:
        yield running.start()
        assert running.stop() == 0, running.output
    finally:
        running.kill()
