"""Configurations of HAProxy and nginx for a set of gateways, from the files in ops/load_balancing."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

TEMPLATES = Path(__file__).with_name("load_balancing")


@dataclass(frozen=True, slots=True)
class Balancer:
    """One that is installed, and how it is run in the foreground."""

    name: str
    url: str
    command: tuple[str, ...]


def haproxy_configuration(port: int, endpoints: Sequence[str], admin_urls: Sequence[str]) -> str:
    """HAProxy asks each gateway's admin port for its health."""
    servers = [
        f"    server gateway{number} {urlsplit(endpoint).netloc} port {urlsplit(admin).port}"
        for number, (endpoint, admin) in enumerate(zip(endpoints, admin_urls, strict=True), 1)
    ]
    text = (TEMPLATES / "haproxy.cfg").read_text()
    return text.replace("@PORT@", str(port)).replace("@SERVERS@", "\n".join(servers))


def nginx_configuration(port: int, endpoints: Sequence[str], run: Path) -> str:
    """Here nginx finds out by itself who does not answer."""
    servers = [
        f"        server {urlsplit(endpoint).netloc} max_fails=1 fail_timeout=2s;"
        for endpoint in endpoints
    ]
    text = (TEMPLATES / "nginx.conf").read_text()
    text = text.replace("@PORT@", str(port)).replace("@RUN@", str(run))
    return text.replace("@SERVERS@", "\n".join(servers))


def balancer_of(
    directory: Path, port: int, endpoints: Sequence[str], admin_urls: Sequence[str]
) -> Balancer | None:
    """HAProxy if there is one, else nginx, else None; its configuration is written."""
    url = f"http://127.0.0.1:{port}"
    if binary := shutil.which("haproxy"):
        path = directory / "haproxy.cfg"
        path.write_text(haproxy_configuration(port, endpoints, admin_urls))
        return Balancer("haproxy", url, (binary, "-W", "-db", "-f", str(path)))
    if binary := shutil.which("nginx"):
        run = directory / "nginx"
        run.mkdir(exist_ok=True)
        path = directory / "nginx.conf"
        path.write_text(nginx_configuration(port, endpoints, run))
        return Balancer("nginx", url, (binary, "-c", str(path), "-p", str(run)))
    return None
