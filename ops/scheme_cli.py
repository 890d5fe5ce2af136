"""`ostraka admin scheme class …` and `ostraka admin bucket scheme`: spoken to the admin port, of `serve`
and of a cluster alike."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from ops.admin_options import URL_DEFAULT, Ask, Dir, Json, Url
from ops.cluster_admin_cli import scheme_app

DEFAULT = "default"
_CLASSES = "/api/v1/storage-classes"

Class = Annotated[
    str, typer.Argument(metavar="CLASS", help="Like STANDARD_IA, or one of your own.")
]


def register(bucket: typer.Typer, ask: Ask) -> None:
    """Add the commands: of storage classes to `scheme`, and one to `bucket`."""
    app = typer.Typer(help="The schemes of storage classes.", no_args_is_help=True)
    scheme_app.add_typer(app, name="class")

    @app.command("set")
    def set_class(
        name: Class,
        scheme: Annotated[str, typer.Argument(metavar="K+M")],
        url: Url = URL_DEFAULT,
        directory: Dir = None,
        as_json: Json = False,
    ) -> None:
        """Store new objects of a storage class under a scheme; stored ones keep theirs."""
        path = f"{_CLASSES}/{quote(name, safe='')}"
        _show(ask(url, directory, "PUT", path, {"scheme": scheme}), as_json=as_json)

    @app.command("unset")
    def unset_class(
        name: Class, url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False
    ) -> None:
        """Take no new objects into a storage class; those that are in it stay as they are."""
        path = f"{_CLASSES}/{quote(name, safe='')}"
        _show(ask(url, directory, "DELETE", path), as_json=as_json)

    @app.command("list")
    def list_classes(url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False) -> None:
        """The storage classes that have a scheme, and the default scheme."""
        _show(ask(url, directory, "GET", _CLASSES), as_json=as_json)

    @bucket.command("scheme")
    def bucket_scheme(
        name: Annotated[str, typer.Argument(metavar="BUCKET")],
        scheme: Annotated[
            str | None,
            typer.Argument(metavar="[K+M|default]", help="Left out: say which one it is."),
        ] = None,
        url: Url = URL_DEFAULT,
        directory: Dir = None,
        as_json: Json = False,
    ) -> None:
        """The scheme of a bucket's new STANDARD objects; stored ones keep theirs."""
        path = f"/api/v1/bucket-schemes/{quote(name, safe='')}"
        if scheme is None:
            told = ask(url, directory, "GET", path)
        else:
            document = {"scheme": "" if scheme == DEFAULT else scheme}
            told = ask(url, directory, "PUT", path, document)
        if as_json:
            typer.echo(json.dumps(told))
            return
        whose = "its own" if told["own"] else "the default"
        typer.echo(f"bucket {told['bucket']}: scheme {told['scheme']} ({whose})")


def _show(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(told))
        return
    table = Table("storage class", "scheme")
    table.add_row("STANDARD", f"{told['default']} (the default)")
    for name, scheme in told["classes"].items():
        table.add_row(name, scheme)
    Console(width=100).print(table)
