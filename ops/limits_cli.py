"""`ostraka admin bucket`, `… quota` and `ostraka admin settings`: buckets, what they may hold, and what
holds for the whole store."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote as quoted

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from ops.admin_options import URL_DEFAULT, Ask, Dir, Json, Url
from ops.cluster_cli import refuse

MaxBytes = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Bytes, as 10GiB or 500MB. Default: no limit.")
]
MaxObjects = Annotated[int | None, typer.Option(help="Objects and versions. Default: no limit.")]
_UNITS: Final[dict[str, int]] = {
    **{f"{letter}ib": 1 << 10 * power for power, letter in enumerate("kmgtpe", 1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgtpe", 1)},
    "b": 1,
    "": 1,
}
_SIZE: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,3})?) ?([A-Za-z]{0,3})")


class SetByDefault(TyperGroup):
    """A group in which whatever names no command is what `set` is for: `quota BUCKET --max-bytes 1`
    is `quota set BUCKET --max-bytes 1`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click, of which typer brings its own copy or not."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["set", *args]
        return super().resolve_command(ctx, args)


def parse_size(text: str) -> int:
    """A number of bytes: a unit is one of k, M, G, T, P and E with B (thousands) or iB (1024).
    Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    unit = None if found is None else _UNITS.get(found[2].lower())
    if found is None or unit is None:
        raise ValueError(f"{text!r} is no size: give bytes, or a number with a unit, as 10GiB")
    whole, _, fraction = found[1].partition(".")
    scaled: int = int(whole + fraction) * unit
    return scaled // int(f"1{'0' * len(fraction)}")


def shown_size(size_bytes: int) -> str:
    """A number of bytes for people, in units of 1024."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def register(admin: typer.Typer, bucket: typer.Typer, account: typer.Typer, ask: Ask) -> None:
    """Add these commands to `ostraka admin`, its `bucket` and its `account`."""
    _buckets(bucket, ask)
    bucket.add_typer(
        _quota(ask, "/api/v1/buckets", "BUCKET", "a bucket", _show_bucket), name="quota"
    )
    account.add_typer(
        _quota(
            ask, "/api/v1/accounts", "NAME", "all buckets of an account together", _show_account
        ),
        name="quota",
    )
    settings = typer.Typer(help="What holds for the whole store.", no_args_is_help=True)
    _settings(settings, ask)
    admin.add_typer(settings, name="settings")


def _buckets(app: typer.Typer, ask: Ask) -> None:
    @app.command("list")
    def show_all(url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False) -> None:
        """All buckets; what they hold is shown of those that the keeper counts."""
        found: list[dict[str, Any]] = []
        more, after = True, ""
        while more:
            page = ask(url, directory, "GET", f"/api/v1/buckets?after={quoted(after, safe='')}")
            found += page["buckets"]
            more, after = page["more"], found[-1]["name"] if found else ""
        if as_json:
            typer.echo(json.dumps(found))
            return
        table = Table("bucket", "account", "versioning", "objects", "size", "quota")
        for each in found:
            objects, size = _held(each["held"])
            quota = _limit(each["quota"])
            table.add_row(each["name"], each["owner"], each["versioning"], objects, size, quota)
        Console(width=160).print(table)

    @app.command("show")
    def show_one(
        bucket: str, url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False
    ) -> None:
        """One bucket. What it holds is counted now, unless the keeper counts it anyway."""
        path = f"/api/v1/buckets/{quoted(bucket, safe='')}"
        _show_bucket(ask(url, directory, "GET", path), as_json)


def _show_bucket(bucket: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(bucket))
        return
    made = datetime.fromtimestamp(bucket["created_ms"] / 1000, UTC).isoformat(timespec="seconds")
    typer.echo(f"bucket {bucket['name']} of account {bucket['owner']}, made {made}")
    typer.echo(f"  region      {bucket['region']}")
    typer.echo(f"  versioning  {bucket['versioning'] or 'off'}")
    typer.echo(f"  quota       {_limit(bucket['quota']) or 'none'}")
    held = bucket["held"]
    if held is None:
        return
    if held["source"] == "at least":
        typer.echo("  it holds at least (there is too much to be counted now):")
    for what, number, size in (
        ("objects", "objects", "size_bytes"),
        ("versions", "noncurrent", "noncurrent_bytes"),
        ("parts", "parts", "parts_bytes"),
    ):
        typer.echo(f"  {what:<10}  {held[number]}, {shown_size(held[size])}")


def _show_account(account: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(account))
        return
    typer.echo(f"account {account['name']} ({account['account_id']})")
    typer.echo(f"  quota    {_limit(account['quota']) or 'none'}")
    if account["quota"] is not None:
        typer.echo(f"  objects  {account['objects']}")
        typer.echo(f"  size     {shown_size(account['size_bytes'])}")


def _held(held: dict[str, Any] | None) -> tuple[str, str]:
    if held is None:
        return "", ""
    size = held["size_bytes"] + held["noncurrent_bytes"] + held["parts_bytes"]
    return str(held["objects"] + held["noncurrent"]), shown_size(size)


def _limit(quota: dict[str, Any] | None) -> str:
    if quota is None:
        return ""
    words = []
    if quota["max_bytes"] is not None:
        words.append(shown_size(quota["max_bytes"]))
    if quota["max_objects"] is not None:
        words.append(f"{quota['max_objects']} objects")
    return ", ".join(words)


def _quota(
    ask: Ask, root: str, metavar: str, of: str, show: Callable[[dict[str, Any], bool], None]
) -> typer.Typer:
    """The commands of one kind of quota."""
    app = typer.Typer(cls=SetByDefault, help=f"How much {of} may hold.", no_args_is_help=True)
    Name = Annotated[str, typer.Argument(metavar=metavar)]  # noqa: N806 - a type

    def run(
        url: str, directory: Path | None, method: str, name: str, document: dict[str, Any] | None
    ) -> Any:
        path = f"{root}/{quoted(name, safe='')}/quota"
        return ask(url, directory, method, path, document)

    @app.command("set", help=f"Limit {of}; what is not given is not limited any more.")
    def set_quota(
        name: Name,
        max_bytes: MaxBytes = None,
        max_objects: MaxObjects = None,
        url: Url = URL_DEFAULT,
        directory: Dir = None,
        as_json: Json = False,
    ) -> None:
        if max_bytes is None and max_objects is None:
            raise refuse("give --max-bytes, --max-objects or both; `clear` takes a quota away")
        try:
            size_bytes = None if max_bytes is None else parse_size(max_bytes)
        except ValueError as error:
            raise refuse(error) from None
        if max_objects is not None and max_objects < 0:
            raise refuse("--max-objects is a number from 0 on")
        document = {"max_bytes": size_bytes, "max_objects": max_objects}
        show(run(url, directory, "PUT", name, document), as_json)

    @app.command("show", help=f"The quota of {of}, and what is held.")
    def show_quota(
        name: Name, url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False
    ) -> None:
        show(run(url, directory, "GET", name, None), as_json)

    @app.command("clear", help="Take the quota away.")
    def clear_quota(
        name: Name, url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False
    ) -> None:
        show(run(url, directory, "DELETE", name, None), as_json)

    return app


def _settings(app: typer.Typer, ask: Ask) -> None:
    path = "/api/v1/settings"

    @app.command("show")
    def show(url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False) -> None:
        """The settings of the whole store."""
        _show_settings(ask(url, directory, "GET", path), as_json)

    @app.command("set")
    def change(
        default_encryption: Annotated[
            str | None,
            typer.Option(help="AES256: buckets without a rule of their own have SSE-S3. Or none."),
        ] = None,
        bucket_metrics: Annotated[
            int | None,
            typer.Option(help="Metrics tell what so many buckets hold, the largest. 0: none."),
        ] = None,
        url: Url = URL_DEFAULT,
        directory: Dir = None,
        as_json: Json = False,
    ) -> None:
        """Change settings of the whole store; every gateway follows at once."""
        given = {"default_encryption": default_encryption, "bucket_metrics": bucket_metrics}
        document = {name: value for name, value in given.items() if value is not None}
        if not document:
            raise refuse("give --default-encryption, --bucket-metrics or both")
        _show_settings(ask(url, directory, "PUT", path, document), as_json)


def _show_settings(settings: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(settings))
        return
    typer.echo(f"default encryption  {settings['default_encryption']}")
    typer.echo(f"bucket metrics      {settings['bucket_metrics'] or 'none'}")
