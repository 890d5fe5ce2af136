"""The settings of Vault: what is missing, misspelt or unsafe is refused before anything starts."""

import json
from pathlib import Path

import pytest

from gateway.kms.settings import VaultSettings
from ops.config import ConfigError
from ops.vault_file import read_vault_file


def written(folder: Path, **content: str) -> Path:
    path = folder / "vault.json"
    path.write_text(json.dumps(content))
    (folder / "token").write_text("s.x")
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, url="https://vault:8200", token_file="token")
    assert read_vault_file(path) == VaultSettings("https://vault:8200", str(tmp_path / "token"))
    assert read_vault_file(None) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:8200", "http://localhost", "http://[::1]:1"])
def test_plain_http_stays_on_this_host(tmp_path: Path, url: str) -> None:
    assert read_vault_file(written(tmp_path, url=url, token_file="token")) is not None


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"url": "https://vault"},
        {"url": "https://vault", "token_file": "no-such-file"},
        {"url": "https://vault", "token_file": "token", "ca_file": "no-such-file"},
        {"url": "https://vault", "token_file": "token", "mount": "/"},
        {"url": "https://vault", "token_file": "token", "tokn": "x"},
        {"url": "http://192.0.2.1", "token_file": "token"},
        {"url": "ftp://vault", "token_file": "token"},
        {"url": "https://", "token_file": "token"},
        {"url": "https://[x", "token_file": "token"},
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, content: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        read_vault_file(written(tmp_path, **content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_vault_file(tmp_path / "vault.json")
