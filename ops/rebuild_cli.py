"""`ostraka admin rebuild …`: from the drives to metadata, when the store of the metadata is lost."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.admin_options import Json
from ops.cluster_admin_cli import run, settings_of
from ops.cluster_options import ClusterOptions, in_cluster
from ops.folder_owner import act_as_owner
from ops.settings import ClusterSettings

rebuild_app = typer.Typer(help="Metadata from the drives, when it is lost.", no_args_is_help=True)
Running = Annotated[
    Path | None,
    typer.Option("--dir", help="The folder of a running `serve`; without it, a cluster is meant."),
]


def register(admin: typer.Typer) -> None:
    """Add these commands to `ostraka admin`."""
    admin.add_typer(rebuild_app, name="rebuild")


def _unless(directory: Path | None, cluster: ClusterOptions) -> ClusterSettings | None:
    """The cluster that is meant; None where it is the store of a folder."""
    return None if directory is not None else settings_of(cluster)


def _tell(words: str) -> None:
    typer.echo(words, err=True)


@rebuild_app.command("directory")
def rebuild_directory(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of `serve`.")],
    missing: Annotated[
        int, typer.Option(help="Go on without so many of its drives: they are gone for good.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Make DIR/metadata anew from the drives of a store that does not run. Root becomes DIR's owner."""
    from ops.rebuild.places import rebuild_directory as work

    act_as_owner(directory)
    _show(run(lambda: work(directory.absolute(), missing, _tell)).shown(), as_json=as_json)


@rebuild_app.command("cluster")
@in_cluster
def rebuild_cluster(
    cluster: ClusterOptions,
    drive: Annotated[
        Path, typer.Option(metavar="PATH", help="Any drive of the cluster, for the cluster's id.")
    ],
    drives: Annotated[int, typer.Option(help="Begin when so many are registered: all there are.")],
    wait: Annotated[float, typer.Option(help="Seconds to wait for them.")] = 600.0,
    as_json: Json = False,
) -> None:
    """Fill a new, empty etcd from the drives of the nodes that register with it."""
    from ops.rebuild.places import rebuild_cluster as work

    settings = settings_of(cluster)
    restored = run(lambda: work(settings, drive.absolute(), drives, wait, _tell))
    _show(restored.shown(), as_json=as_json)


def _show(restored: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(restored))
        return
    when = datetime.fromtimestamp(restored["as_of_ms"] / 1000, UTC).isoformat(timespec="seconds")
    typer.echo(
        f"metadata as of {when}: snapshot {restored['snapshot']}, {restored['parts']} parts,"
        f" {restored['keys']} writes; incarnation {restored['incarnation']}"
    )
    if restored["unreadable_parts"]:
        typer.echo(f"warning: {restored['unreadable_parts']} parts could not be read")
    typer.echo("nothing is deleted from the drives until `ostraka admin rebuild confirm`")


@rebuild_app.command("later")
@in_cluster
def later(
    cluster: ClusterOptions,
    put_back: Annotated[
        bool, typer.Option("--put-back", help="Commit what they tell, instead of telling it only.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="BUCKET/KEY", help="Of these objects alone; repeat for each."),
    ] = None,
    directory: Running = None,
    as_json: Json = False,
) -> None:
    """What shards tell that the rebuilt metadata does not: one line of JSON each with --json."""
    from ops.rebuild.later import Later, later_shards
    from ops.rebuild.later import put_back as commit
    from ops.rebuild.places import running

    settings = _unless(directory, cluster)
    wanted = set(only or ())

    async def work() -> dict[str, int]:
        counts = {"told": 0, "put_back": 0, "left": 0}
        async with running(directory, settings) as clients:
            found: list[Later] = []
            async for item in later_shards(clients, lambda _: None):
                if wanted and f"{item.bucket}/{item.key}" not in wanted:
                    continue
                counts["told"] += 1
                if put_back:
                    found.append(item)
                else:
                    _say(item.shown(), as_json=as_json)
            # Oldest first, so that of two of one key the newer is in its place at last.
            for item in sorted(found, key=lambda item: item.created_ms):
                refused = await commit(clients, item)
                counts["left" if refused else "put_back"] += 1
                _say(item.shown() | {"refused": refused}, as_json=as_json)
        return counts

    counts = run(work)
    if not as_json:
        words = f"{counts['told']} found"
        if put_back:
            words += f", {counts['put_back']} put back, {counts['left']} left"
        typer.echo(words)


def _say(item: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(item))
        return
    when = datetime.fromtimestamp(item["created_ms"] / 1000, UTC).isoformat(timespec="seconds")
    bucket = item["bucket"] or f"(bucket {item['bucket_id']})"
    part = f" part {item['part']}" if "part" in item else ""
    state = "" if item["readable"] else ", too few shards"
    if "refused" in item:
        state = f": {item['refused'] or 'put back'}"
    typer.echo(f"{when} {bucket}/{item['key']}{part}, {item['size_bytes']} bytes{state}")


@rebuild_app.command("confirm")
@in_cluster
def confirm(
    cluster: ClusterOptions,
    directory: Running = None,
    as_json: Json = False,
) -> None:
    """The rebuilt metadata is right: from now on what it does not name may go from the drives."""
    from ops.rebuild.places import running
    from ops.rebuild.restore import confirm as work

    settings = _unless(directory, cluster)

    async def confirmed() -> int:
        async with running(directory, settings) as clients:
            return (await work(clients.metastore)).incarnation

    incarnation = run(confirmed)
    typer.echo(
        json.dumps({"incarnation": incarnation})
        if as_json
        else f"incarnation {incarnation} is confirmed: garbage and sweep go on"
    )
