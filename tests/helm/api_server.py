"""A real kube-apiserver on loopback, over an etcd of its own, for the optional tests of the chart.

There is no kubelet, no scheduler and no controller: objects are taken, validated and kept, and no
pod ever runs.
"""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.contract.etcd_process import EtcdCluster, free_ports

TOKEN = "of-the-test"
START_SECONDS = 120


class ApiServer:
    """One server. `binary`: kube-apiserver."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary, self._folder = binary, folder
        (port,) = free_ports(1)
        self.url = f"https://127.0.0.1:{port}"
        self._port = port
        self._etcd: EtcdCluster | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def start(self) -> float:
        """Start it and wait until it is ready; the seconds that this took."""
        key = rsa.generate_private_key(65537, 2048)
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        own = self._folder / "accounts.key"
        own.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        tokens = self._folder / "tokens.csv"
        tokens.write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        self._etcd = EtcdCluster(1)
        command = [
            self._binary, f"--etcd-servers={self._etcd.endpoints[0]}", "--bind-address=127.0.0.1",
            f"--secure-port={self._port}", f"--cert-dir={self._folder / 'certificates'}",
            f"--token-auth-file={tokens}", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={own}", f"--service-account-signing-key-file={own}",
        ]  # fmt: skip
        began = time.monotonic()
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        while not self._ready():
            late = time.monotonic() - began > START_SECONDS
            if late or self._process.poll() is not None:
                raise AssertionError((self._folder / "log").read_text()[-3000:])
            time.sleep(0.2)
        return time.monotonic() - began

    def _ready(self) -> bool:
        try:
            return bool(self.ask("GET", "/readyz") == "ok")
        except OSError:
            return False

    def close(self) -> None:
        """End it and its etcd."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._etcd is not None:
            self._etcd.close()

    def kubeconfig(self) -> str:
        """As kubectl and Helm read it."""
        server = {"server": self.url, "insecure-skip-tls-verify": True}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "live", "cluster": server}],
                "users": [{"name": "admin", "user": {"token": TOKEN}}],
                "contexts": [{"name": "live", "context": {"cluster": "live", "user": "admin"}}],
                "current-context": "live",
            }
        )

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        """A request as the administrator. Raises HTTPError with the server's words as its reason."""
        request = urllib.request.Request(
            self.url + path,
            None if document is None else json.dumps(document).encode(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._context) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as refused:
            refused.msg = refused.read().decode()
            raise
        return json.loads(text) if text.startswith("{") else text
