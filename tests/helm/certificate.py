"""A certificate that is signed by itself, made with openssl."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """For that name or address: the files of the certificate and of its key."""
    certificate, key = folder / "ca.crt", folder / "server.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "1",
            "-subj", "/CN=api", "-addext", f"subjectAltName={name}",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key
