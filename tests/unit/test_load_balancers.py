"""Configurations of load balancers: every gateway is in them, and the programs themselves accept them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ops.load_balancers import haproxy_configuration, nginx_configuration

ENDPOINTS = ["http://127.0.0.1:9000", "http://127.0.0.1:9010"]
ADMIN_URLS = ["http://127.0.0.1:9001", "http://127.0.0.1:9011"]


def test_haproxy_asks_the_admin_port_of_each_gateway() -> None:
    text = haproxy_configuration(8000, ENDPOINTS, ADMIN_URLS)
    assert "bind 127.0.0.1:8000" in text
    assert "server gateway1 127.0.0.1:9000 port 9001" in text
    assert "server gateway2 127.0.0.1:9010 port 9011" in text
    assert "@" not in text


def test_nginx_neither_buffers_nor_bounds_bodies(tmp_path: Path) -> None:
    text = nginx_configuration(8000, ENDPOINTS, tmp_path)
    assert "listen 127.0.0.1:8000;" in text
    for endpoint in ("127.0.0.1:9000", "127.0.0.1:9010"):
        assert f"server {endpoint} " in text
    assert "proxy_request_buffering off;" in text
    assert "client_max_body_size 0;" in text
    assert "@" not in text


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
def test_haproxy_accepts_it(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(haproxy_configuration(8000, ENDPOINTS, ADMIN_URLS))
    done = subprocess.run(
        ["haproxy", "-c", "-f", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_accepts_it(tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text(nginx_configuration(8000, ENDPOINTS, tmp_path))
    done = subprocess.run(
        ["nginx", "-t", "-c", str(file), "-p", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
