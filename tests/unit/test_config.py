"""Configuration and the folder of `ostraka serve`: what is refused, and in which words."""

import json
import os
import stat
from pathlib import Path

import pytest

from gateway.kms.settings import VaultSettings
from ops import serving
from ops.config import (
    ConfigError,
    Credentials,
    DriveSetting,
    Secret,
    ServeConfig,
    credentials_from,
    drive_settings,
    scheme_for,
)
from ops.directory import (
    DirectoryRefused,
    open_directory,
    root_credentials,
    write_marker,
)
from placement.clock import SystemRandomness
from placement.schemes import Scheme

RANDOM = SystemRandomness()


def test_unknown_variables_with_our_prefix_are_errors() -> None:
    with pytest.raises(ConfigError, match="OSTRAKA_ROOT_ACESS_KEY"):
        credentials_from({"OSTRAKA_ROOT_ACESS_KEY": "x"})
    with pytest.raises(ConfigError, match="ostraka_region"):
        credentials_from({"ostraka_region": "x"})


def test_root_credentials_of_the_environment_come_in_pairs() -> None:
    with pytest.raises(ConfigError, match="go together"):
        credentials_from({"OSTRAKA_ROOT_ACCESS_KEY": "ROOT"})
    pair = credentials_from(
        {"OSTRAKA_ROOT_ACCESS_KEY": "ROOTKEY", "OSTRAKA_ROOT_SECRET_KEY": "long-enough"}
    )
    assert pair is not None
    assert pair.access_key == "ROOTKEY"
    assert "long-enough" not in repr(pair)


@pytest.mark.parametrize(
    "options",
    [
        {"port": 70000},
        {"port": 9000, "admin_port": 9000},
        {"workers": 0},
        {"tls_cert": Path("/nowhere")},
        {"region": ""},
        {"bind": ""},
        {"bind": "a\n"},
        {"domains": ("bad domain!",)},
        {"domains": ("-a.example",)},
        {"domains": ("a..example",)},
        {"access_log": "/nowhere/at/all.log"},
        {"access_log": "/"},
        {"access_log": "a\0b"},
        {"tls_cert": Path(__file__), "tls_key": Path(__file__)},
    ],
)
def test_contradictions_are_refused_before_anything_starts(
    options: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        ServeConfig(directory=tmp_path, **options)  # type: ignore[arg-type]


def test_drives_by_number_and_by_path_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either"):
        drive_settings(tmp_path, 3, ("/mnt/a",))
    with pytest.raises(ConfigError):
        drive_settings(tmp_path, 0, ())
    assert drive_settings(tmp_path, None, ()) == ()
    assert [d.may_adopt for d in drive_settings(tmp_path, 2, ())] == [True, True]
    assert [d.may_adopt for d in drive_settings(tmp_path, None, ("/mnt/a",))] == [False]


def test_a_scheme_wider_than_the_drives_is_refused() -> None:
    assert scheme_for(None, 6) == Scheme(4, 2)
    assert scheme_for(Scheme(2, 1), 6) == Scheme(2, 1)
    with pytest.raises(ConfigError, match="needs 6 drives"):
        scheme_for(Scheme(4, 2), 5)


def test_a_new_folder_gets_six_drives_and_random_credentials(tmp_path: Path) -> None:
    directory = open_directory(tmp_path / "data", (), RANDOM)
    assert directory.is_new
    assert [Path(d.path).name for d in directory.drives] == [f"drive{n}" for n in range(1, 7)]
    credentials, fresh = root_credentials(directory, None, RANDOM)
    assert fresh
    assert len(credentials.access_key) == 20
    assert len(credentials.secret_key) == 40
    file = directory.path / "credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {
        "access_key": credentials.access_key,
        "secret_key": str(credentials.secret_key),
    }
    assert root_credentials(directory, None, RANDOM) == (credentials, False)


def test_a_second_process_cannot_open_the_folder(tmp_path: Path) -> None:
    directory = open_directory(tmp_path, (), RANDOM)
    with pytest.raises(DirectoryRefused, match="in use"):
        open_directory(tmp_path, (), RANDOM)
    assert directory.lock >= 0


def _reopen(directory: object, path: Path, drives: tuple[object, ...] = ()) -> object:
    import os

    os.close(directory.lock)  # type: ignore[attr-defined]
    return open_directory(path, drives, RANDOM)  # type: ignore[arg-type]


def test_drives_keep_their_slots_and_can_only_be_added(tmp_path: Path) -> None:
    first = open_directory(tmp_path, drive_settings(tmp_path, 3, ()), RANDOM)
    write_marker(first)
    again = _reopen(first, tmp_path)
    assert not again.is_new  # type: ignore[attr-defined]
    assert again.drives == first.drives  # type: ignore[attr-defined]
    assert again.cluster_id == first.cluster_id  # type: ignore[attr-defined]
    more = _reopen(again, tmp_path, drive_settings(tmp_path, 5, ()))
    assert more.drives[:3] == first.drives  # type: ignore[attr-defined]
    assert len(more.drives) == 5  # type: ignore[attr-defined]
    write_marker(more)  # type: ignore[arg-type]
    with pytest.raises(DirectoryRefused, match="can be added, not left out"):
        _reopen(more, tmp_path, drive_settings(tmp_path, 4, ()))


def test_a_folder_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    first = open_directory(tmp_path, (), RANDOM)
    write_marker(first)
    marker = tmp_path / "ostraka.json"
    content = json.loads(marker.read_text())
    content["min_reader_version"] = 2
    marker.write_text(json.dumps(content))
    with pytest.raises(DirectoryRefused, match="newer version"):
        _reopen(first, tmp_path)


def test_a_missing_drive_folder_is_not_made_again(tmp_path: Path) -> None:
    first = open_directory(tmp_path, (), RANDOM)
    write_marker(first)
    (tmp_path / "drive2").rmdir()
    _reopen(first, tmp_path)
    assert not (tmp_path / "drive2").exists()


def test_secrets_do_not_show(tmp_path: Path) -> None:
    assert "hush" not in repr(Secret("hush"))
    assert "hush" not in f"{[Secret('hush')]}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"access_key": 5, "secret_key": "long-enough"}',
        '{"access_key": "ROOTKEY", "secret_key": ""}',
        '{"access_key": "R/T", "secret_key": "long-enough"}',
        "\udcff",
    ],
)
def test_garbled_credentials_are_refused(text: str, tmp_path: Path) -> None:
    directory = open_directory(tmp_path / "d", (), RANDOM)
    path = tmp_path / "d" / "credentials.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DirectoryRefused, match=r"credentials\.json"):
        root_credentials(directory, None, RANDOM)
    os.close(directory.lock)


@pytest.mark.parametrize(
    "change", [{"cluster_id": "00"}, {"cluster_id": 7}, {"drives": []}, {"drives": 3}, None]
)
def test_a_garbled_marker_is_refused(change: dict[str, object] | None, tmp_path: Path) -> None:
    directory = open_directory(tmp_path / "d", (), RANDOM)
    write_marker(directory)
    os.close(directory.lock)
    marker = tmp_path / "d" / "ostraka.json"
    content = json.loads(marker.read_text())
    marker.write_text("[" if change is None else json.dumps(content | change))
    with pytest.raises(DirectoryRefused, match=r"ostraka\.json"):
        open_directory(tmp_path / "d", (), RANDOM)


@pytest.mark.parametrize("paths", [("",), ("a\0b",)])
def test_drives_must_have_names(paths: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--drive"):
        drive_settings(tmp_path, None, paths)


def test_all_that_serve_was_told_reaches_the_supervisors_program(tmp_path: Path) -> None:
    told = ServeConfig(
        directory=tmp_path,
        drives=(DriveSetting(str(tmp_path / "a"), True), DriveSetting("/b", False)),
        scheme=Scheme(1, 1),
        bind="::",
        port=1,
        admin_port=2,
        website_port=3,
        region="r",
        workers=4,
        domains=("a.example", "b.example"),
        access_log="-",
        encrypt_at_rest=True,
        customer_keys_over_http=True,
        vault=VaultSettings("https://v", "/token", ca_file="/ca"),
    )
    for given in (None, Credentials("A" * 20, Secret("s" * 40))):
        assert serving.decode(serving.encode(told, given)) == (told, given)
