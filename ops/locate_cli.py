"""`ostraka admin object locate`: of the store or cluster behind an admin port, or of the cluster that
its options name, whether or not a gateway runs."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ops import cluster_admin
from ops.admin_errors import AdminError
from ops.admin_options import URL_DEFAULT, Ask, Dir, Json, Url, with_query
from ops.cluster_admin_cli import object_app, run, settings_of
from ops.cluster_options import ClusterOptions, in_cluster
from ops.object_locate import PAGE_SECONDS, VERIFY_SECONDS, ObjectShards
from ops.refusal import Refused
from ops.settings import ClusterSettings

_PATH = "/api/v1/object-shards"


def register(ask: Ask) -> None:
    """Add the command to `object`."""

    @object_app.command("locate")
    @in_cluster
    def locate(
        cluster: ClusterOptions,
        bucket: Annotated[str, typer.Argument(metavar="BUCKET")],
        key: Annotated[str, typer.Argument(metavar="KEY")],
        version_id: Annotated[str, typer.Option(help="Default: the current version.")] = "",
        url: Url = URL_DEFAULT,
        directory: Dir = None,
        as_json: Json = False,
    ) -> None:
        """Read and verify every shard of an object: drive, zone, health, remaining tolerance. With
        --etcd it needs no admin port."""
        asked = {"bucket": bucket, "key": key, "version_id": version_id}
        if cluster.etcd:
            settings = settings_of(cluster)
            blobs = run(lambda: _in_cluster(settings, asked))
        else:
            blobs = [blob for page in _pages(ask, url, directory, asked) for blob in page["blobs"]]
        if as_json:
            typer.echo(json.dumps(blobs))
        else:
            _print(blobs)


def _pages(
    ask: Ask, url: str, directory: Path | None, asked: dict[str, str]
) -> Iterator[dict[str, Any]]:
    after = ""
    while True:
        path = with_query(_PATH, asked | {"after": after})
        patience = PAGE_SECONDS + 2 * VERIFY_SECONDS
        page = ask(url, directory, "GET", path, timeout_seconds=patience)
        yield page
        after = page["after"]
        if not after:
            return


async def _in_cluster(settings: ClusterSettings, asked: dict[str, str]) -> list[dict[str, Any]]:
    async with cluster_admin.session(settings) as clients:
        shards = ObjectShards(clients, lambda: cluster_admin.named_reports(clients))
        blobs: list[dict[str, Any]] = []
        after = ""
        while True:
            try:
                page = await shards.page(**asked, after=after)
            except AdminError as error:
                raise Refused(str(error)) from error
            blobs += [asdict(blob) for blob in page.blobs]
            after = page.after
            if not after:
                return blobs


def _print(blobs: list[dict[str, Any]]) -> None:
    console = Console(width=160)
    for blob in blobs:
        console.print(
            f"blob {blob['blob']} {blob['scheme']}, {blob['size_bytes']} bytes,"
            f" tolerance [bold]{blob['tolerance']}[/bold]"
        )
        table = Table("index", "drive", "id", "node", "host", "zone", "home", "health")
        for shard in blob["shards"]:
            table.add_row(
                str(shard["index"]), shard["path"], shard["drive"][:12], shard["node"],
                shard["host"], shard["zone"], "yes" if shard["home"] else "no", shard["health"],
            )  # fmt: skip
        console.print(table)
