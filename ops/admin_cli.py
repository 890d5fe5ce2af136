"""`ostraka admin …`: operator commands, spoken to the admin port with signed requests."""

import functools
import http.client
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ParamSpec
from urllib.parse import quote, urlsplit

import typer
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as SigningCredentials
from rich.console import Console
from rich.table import Table

from ops import (
    cluster_admin_cli,
    iam_cli,
    limits_cli,
    locate_cli,
    lost_cli,
    migrate_cli,
    rebuild_cli,
    scheme_cli,
)
from ops.admin_options import TIMEOUT_SECONDS, URL_DEFAULT, Dir, Json, Url
from ops.cluster_cli import refuse
from ops.config import ConfigError, Credentials, credentials_from
from ops.directory import load_credentials
from placement.clock import SystemClock

REGION = "us-east-1"
P = ParamSpec("P")

admin = typer.Typer(help="Operator commands.", no_args_is_help=True)
account = typer.Typer(help="Accounts: who may own buckets.", no_args_is_help=True)
admin.add_typer(account, name="account")
kms_key = typer.Typer(help="Master keys of SSE-KMS in the local key ring.", no_args_is_help=True)
admin.add_typer(kms_key, name="kms-key")
bucket = typer.Typer(
    help="Buckets: what they hold, what they may hold, and how.", no_args_is_help=True
)
admin.add_typer(bucket, name="bucket")
cluster_admin_cli.register(admin)
rebuild_cli.register(admin)
migrate_cli.register(admin)


class Refusal(Exception):
    """The admin port said no, or could not be reached."""


def _credentials(directory: Path | None) -> Credentials:
    if directory is not None:
        return load_credentials(directory)
    found = credentials_from(os.environ)
    if found is None:
        raise ConfigError(
            "root credentials are needed: set OSTRAKA_ROOT_ACCESS_KEY and"
            " OSTRAKA_ROOT_SECRET_KEY, or give --dir DIR"
        )
    return found


def call(
    url: str,
    directory: Path | None,
    method: str,
    path: str,
    document: dict[str, Any] | None = None,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Any:
    """One signed request; the decoded answer. Raises Refusal or ConfigError."""
    credentials = _credentials(directory)
    body = b"" if document is None else json.dumps(document).encode()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"{url!r} is not an http or https address")
    request = AWSRequest(
        method, f"{url.rstrip('/')}{path}", headers={"content-type": "application/json"}, data=body
    )
    request.context["payload_signing_enabled"] = True
    S3SigV4Auth(
        SigningCredentials(credentials.access_key, str(credentials.secret_key)), "s3", REGION
    ).add_auth(request)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=timeout_seconds)
    try:
        connection.request(method, path, body, dict(request.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
    except OSError as error:
        raise Refusal(f"{url} cannot be reached: {error}") from error
    finally:
        connection.close()
    if answer.status >= 400:
        raise Refusal(_words_of(answer.status, content))
    return json.loads(content) if content else None


def _words_of(status: int, content: bytes) -> str:
    try:
        answer = json.loads(content)
    except ValueError:
        return f"the admin port answered {status}"
    if isinstance(answer, dict) and "message" in answer:
        return f"{answer['code']}: {answer['message']}"
    return f"the admin port answered {status}: {answer}"


def _refusing(asked: Callable[P, Any]) -> Callable[P, Any]:
    """What goes wrong is one sentence, and ends the command."""

    @functools.wraps(asked)
    def ask(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return asked(*args, **kwargs)
        except ConfigError as error:
            raise refuse(error) from None
        except Refusal as error:
            raise refuse(error, status=1) from None

    return ask


_ask = _refusing(call)
iam_cli.register(admin, _ask)
scheme_cli.register(bucket, _ask)
limits_cli.register(admin, bucket, account, _ask)
locate_cli.register(_ask)
lost_cli.register(_ask)


@admin.command()
def status(url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False) -> None:
    """Drives, repairs and remaining tolerance."""
    answer = _ask(url, directory, "GET", "/api/v1/status")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    table = Table("drive", "state", "free", "id")
    for drive in answer["drives"]:
        free = f"{drive['free_bytes'] / 1e9:.1f} GB of {drive['capacity_bytes'] / 1e9:.1f}"
        table.add_row(drive["path"], drive["state"], free, drive["id"][:12])
    console = Console()
    console.print(
        f"state [bold]{answer['state']}[/bold], tolerance {answer['tolerance']},"
        f" repairs pending {answer['repairs_pending']}, orphan shards {answer['orphan_shards']}"
    )
    if stored := answer["duties"].get("repair", {}).get("stored"):
        console.print(stored_line(stored, SystemClock().now_ns() / 1e9))
    if scrub := answer["duties"].get("scrub"):
        console.print(scrub_line(scrub))
    if snapshot := answer["duties"].get("snapshot"):
        console.print(snapshot_line(snapshot))
    for name, told in answer["duties"].items():
        if line := headway_line(name, told):
            console.print(line)
    console.print(table)


def stored_line(stored: dict[str, Any], now_seconds: float) -> str:
    """What is stored by the drives that it may still lose, worst first, for people."""
    held = "; ".join(
        f"{left}: {amount['blobs']:,} blobs, {amount['bytes'] / 1e6:,.1f} MB"
        for left, amount in stored["by_tolerance"].items()
        if amount["blobs"]
    )
    age = _duration(max(now_seconds - stored["began_at_seconds"], 0))
    return f"stored by tolerance: {held or 'nothing'} (counted {age} ago)"


def headway_line(name: str, told: dict[str, Any]) -> str:
    """How a duty that is at work gets on, for people; "" for one that is not."""
    rate, left, eta = told.get("per_second", 0), told.get("left"), told.get("eta_seconds")
    if not rate and not left:
        return ""
    words = [f"{rate:,.1f} {told['unit']}/s"]
    if left is not None:
        words.insert(0, f"{left:,.0f} {told['unit']} left")
    if eta is not None and eta > 0:
        words.append(f"done in {_duration(eta)}")
    return f"{name}: {', '.join(words)}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def scrub_line(scrub: dict[str, Any]) -> str:
    """How far the scrub is and what it found, for people."""
    share = scrub["partition"] / max(scrub["partitions"], 1)
    return (
        f"scrub: pass {scrub['number']:.0f} at {share:.0%}, {scrub['shards']:.0f} shards verified,"
        f" {scrub['damaged']:.0f} damaged, {scrub['different']:.0f} of {scrub['decoded']:.0f} decoded"
        f" blobs differ, oldest check {scrub['oldest_age_seconds'] / 86400:.1f} days ago"
    )


def snapshot_line(snapshot: dict[str, Any]) -> str:
    """What the drives know of the metadata, for people."""
    seconds = f"{snapshot['age_seconds']:.0f} s ago"
    if "number" not in snapshot:
        return f"metadata on the drives: not looked at yet, the keeper began {seconds}"
    age = f"metadata on the drives: as of {seconds}"
    state = "being copied" if snapshot["running"] else "whole"
    line = f"{age}, snapshot {snapshot['number']:.0f} {state}, {snapshot['bytes'] / 1e6:.1f} MB"
    if snapshot.get("unconfirmed"):
        line += "; REBUILT, not confirmed: `ostraka admin rebuild confirm`"
    return line


@account.command("create")
def create_account(
    name: str,
    email: Annotated[str, typer.Option(help="For people and ACL grants.")] = "",
    access_key: Annotated[str | None, typer.Option(help="Default: random.")] = None,
    secret_key: Annotated[str | None, typer.Option(help="Default: random.")] = None,
    url: Url = URL_DEFAULT,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Make an account with one access key. The secret is shown once."""
    document = {"name": name, "email": email}
    if access_key is not None:
        document["access_key"] = access_key
    if secret_key is not None:
        document["secret_key"] = secret_key
    _show([_ask(url, directory, "POST", "/api/v1/accounts", document)], as_json, single=True)


@account.command("list")
def list_accounts(url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False) -> None:
    """All accounts."""
    _show(_ask(url, directory, "GET", "/api/v1/accounts"), as_json, single=False)


@account.command("delete")
def delete_account(
    name: str, url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False
) -> None:
    """Remove an account that owns no buckets."""
    _ask(url, directory, "DELETE", f"/api/v1/accounts/{quote(name, safe='')}")
    typer.echo(json.dumps({"deleted": name}) if as_json else f"deleted {name}")


def _show(accounts: list[dict[str, str]], as_json: bool, *, single: bool) -> None:
    if as_json:
        typer.echo(json.dumps(accounts[0] if single else accounts))
        return
    columns = ["name", "email", "account_id", "access_key"]
    if accounts and "secret_key" in accounts[0]:
        columns.append("secret_key")
    table = Table(*columns)
    for entry in accounts:
        table.add_row(*(entry[column] for column in columns))
    Console(width=160).print(table)


@kms_key.command("create")
def create_kms_key(
    key_id: Annotated[
        str, typer.Argument(help="What requests name it by; aws/s3 serves those that name none.")
    ],
    url: Url = URL_DEFAULT,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Make a master key. It is sealed with the cluster key and never shown."""
    made = _ask(url, directory, "POST", "/api/v1/kms-keys", {"key_id": key_id})
    _show_kms_keys([made], as_json, single=True)


@kms_key.command("list")
def list_kms_keys(url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False) -> None:
    """All master keys; ostraka/sse-s3 is the store's own."""
    _show_kms_keys(_ask(url, directory, "GET", "/api/v1/kms-keys"), as_json, single=False)


@kms_key.command("rotate")
def rotate_kms_key(
    key_id: str, url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False
) -> None:
    """Add a version, which new objects use from now on; older objects stay readable."""
    made = _ask(url, directory, "POST", "/api/v1/kms-key-rotations", {"key_id": key_id})
    _show_kms_keys([made], as_json, single=True)


def _show_kms_keys(keys: list[dict[str, Any]], as_json: bool, *, single: bool) -> None:
    if as_json:
        typer.echo(json.dumps(keys[0] if single else keys))
        return
    table = Table("key", "versions", "created", "newest version")
    for key in keys:
        made, rotated = (
            datetime.fromtimestamp(key[name] / 1000, UTC).isoformat(timespec="seconds")
            for name in ("created_ms", "rotated_ms")
        )
        table.add_row(key["key_id"], str(key["versions"]), made, rotated)
    Console(width=120).print(table)
