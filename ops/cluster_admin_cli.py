"""`ostraka admin` for clusters: init, key, drive, node, map, scheme and object commands."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from ops import cluster_admin
from ops.admin_options import Json
from ops.cluster_admin import DriveView, Plan
from ops.cluster_cli import refuse
from ops.cluster_options import ClusterOptions, in_cluster
from ops.config import ConfigError, credentials_from
from ops.directory import new_credentials, write_durably
from ops.drive_out import give_up, plan_out
from ops.map_store import MapStore
from ops.refusal import Refused
from ops.settings import ClusterSettings
from placement.balance import spread_of
from placement.clock import SystemRandomness
from placement.cluster_map import PARTITION_COUNTS, PARTITIONS_DEFAULT, ClusterMap
from placement.errors import MetastoreUnavailable, PlacementError
from placement.ids import DriveId
from placement.map_changes import (
    MapRefused,
    add_drives,
    balance,
    drain,
    remove,
    replace,
    with_scheme,
)
from placement.membership import DriveRecord
from placement.schemes import Scheme

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")]
Drives = Annotated[
    list[str], typer.Argument(metavar="DRIVE…", help="Start of its id, its slot, or NODE:PATH.")
]
T = TypeVar("T")

drive_app = typer.Typer(help="The drives of a cluster.", no_args_is_help=True)
node_app = typer.Typer(help="The nodes of a cluster.", no_args_is_help=True)
map_app = typer.Typer(help="The cluster map.", no_args_is_help=True)
scheme_app = typer.Typer(help="The scheme of new objects.", no_args_is_help=True)
object_app = typer.Typer(help="Where objects are.", no_args_is_help=True)


def register(admin: typer.Typer) -> None:
    """Add these commands to `ostraka admin`."""
    admin.command("init")(init)
    admin.command("key")(key)
    admin.add_typer(drive_app, name="drive")
    admin.add_typer(node_app, name="node")
    admin.add_typer(map_app, name="map")
    admin.add_typer(scheme_app, name="scheme")
    admin.add_typer(object_app, name="object")


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a command's work; what is refused is one sentence and status 1."""

    async def main() -> T:
        return await work()

    try:
        return asyncio.run(main())
    except TimeoutError:
        error: Exception = Refused("it took too long")
    except (Refused, MapRefused, ConfigError, MetastoreUnavailable, PlacementError) as refused:
        error = refused
    raise refuse(error, status=1)


def settings_of(cluster: ClusterOptions) -> ClusterSettings:
    """Where the cluster is; exits with 2 when the options contradict themselves."""
    try:
        return cluster.settings()
    except ConfigError as error:
        raise refuse(error) from None


def key(file: Path) -> None:
    """Make a cluster key: 32 random bytes in a new file of mode 0600."""
    if file.exists():
        raise refuse(f"{file} exists already", status=1)
    write_durably(file, SystemRandomness().token(32))
    typer.echo(f"wrote {file}: copy it to every host of the cluster, and keep it safe")


@in_cluster
def init(
    cluster: ClusterOptions,
    scheme: Annotated[
        str | None, typer.Option(metavar="K+M", help="Default: what the drives allow.")
    ] = None,
    drives: Annotated[int, typer.Option(help="Wait until so many are registered.")] = 1,
    wait: Annotated[float, typer.Option(help="Seconds to wait for them.")] = 60.0,
    partitions: Annotated[
        int,
        typer.Option(
            help="A power of two from 4096 to 65536: more keep many drives closer to their weights."
            " It stays for good."
        ),
    ] = PARTITIONS_DEFAULT,
    credentials_file: Annotated[
        Path | None, typer.Option(help="Write root's credentials there (mode 0600).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the first cluster map of the drives that nodes have registered, and the root account."""
    settings = settings_of(cluster)
    try:
        given = credentials_from(os.environ)
        wanted = Scheme.parse(scheme) if scheme else None
        if partitions not in PARTITION_COUNTS:
            raise ConfigError(f"--partitions is one of {', '.join(map(str, PARTITION_COUNTS))}")
    except (ConfigError, ValueError) as error:
        raise refuse(error) from None
    credentials = given or new_credentials(SystemRandomness())
    new = run(
        lambda: cluster_admin.init(
            settings,
            credentials,
            scheme=wanted,
            drives=drives,
            wait_seconds=wait,
            partition_count=partitions,
        )
    )
    warnings = cluster_admin.warnings_of(new)
    shown = {"access_key": credentials.access_key, "secret_key": str(credentials.secret_key)}
    if credentials_file is not None:
        write_durably(credentials_file.absolute(), json.dumps(shown).encode())
    if as_json:
        document = {"drives": len(new.drives), "scheme": str(new.scheme), "warnings": warnings}
        typer.echo(json.dumps(document | (shown if given is None else {})))
        return
    typer.echo(f"new cluster: {len(new.drives)} drives, scheme {new.scheme}")
    for warning in warnings:
        typer.echo(f"warning: {warning}")
    if given is None:
        typer.echo("root credentials, shown once:")
        typer.echo(f"  access key  {shown['access_key']}")
        typer.echo(f"  secret key  {shown['secret_key']}")


@drive_app.command("list")
@in_cluster
def list_drives(
    cluster: ClusterOptions,
    as_json: Json = False,
) -> None:
    """All drives: those of the map, and registered ones that are not in it."""
    settings = settings_of(cluster)

    async def work() -> list[DriveView]:
        async with cluster_admin.session(settings) as clients:
            return await cluster_admin.drives_of(clients)

    show_drives(run(work), as_json=as_json)


def show_drives(drives: list[DriveView], *, as_json: bool) -> None:
    """As a table or as JSON."""
    if as_json:
        typer.echo(json.dumps([drive.shown() for drive in drives]))
        return
    table = Table("id", "slot", "node", "zone", "path", "state", "condition", "free", "shards")
    for drive in drives:
        table.add_row(
            drive.drive.hex()[:12],
            "" if drive.slot is None else str(drive.slot),
            drive.node,
            drive.zone,
            drive.path,
            drive.state,
            drive.condition,
            f"{drive.free_bytes / 1e9:.1f} of {drive.capacity_bytes / 1e9:.1f} GB",
            str(drive.shards),
        )
    Console(width=160).print(table)


Edit = Callable[[ClusterMap, list[DriveView], dict[DriveId, DriveRecord]], ClusterMap]


def _change(settings: ClusterSettings, edit: Edit, *, dry_run: bool, as_json: bool) -> None:
    """Apply a change to the map, or only say what it would do."""

    async def work() -> Plan:
        async with cluster_admin.session(settings) as clients:
            drives = await cluster_admin.drives_of(clients)
            assert clients.member is not None
            records = dict(clients.member.view.drives)
            maps = MapStore(clients.metastore)
            now = clients.topology.map
            try:
                plan = cluster_admin.plan_of(now, edit(now, drives, records), drives)
                if not dry_run:
                    await maps.change(lambda current: edit(current, drives, records))
            except MapRefused as refused:
                raise MapRefused(
                    f"{refused}{await cluster_admin.why_moves_wait(clients)}"
                ) from None
            return plan

    _show_plan(run(work), dry_run=dry_run, as_json=as_json)


def _show_plan(plan: Plan, *, dry_run: bool, as_json: bool) -> None:
    document = {
        "epoch": plan.new.epoch,
        "moved_share": round(plan.moved_share, 6),
        "moved_bytes": plan.moved_bytes,
        "warnings": plan.warnings,
        "done": not dry_run,
    }
    if as_json:
        typer.echo(json.dumps(document))
        return
    verb = "would move" if dry_run else "moves"
    typer.echo(
        f"epoch {plan.new.epoch}: {verb} {plan.moved_share:.1%} of all shards,"
        f" about {plan.moved_bytes / 1e9:.2f} GB"
    )
    for warning in plan.warnings:
        typer.echo(f"warning: {warning}")


def _records_of(
    drives: list[DriveView], records: dict[DriveId, DriveRecord], wanted: list[str]
) -> list[DriveRecord]:
    chosen = cluster_admin.choose(drives, wanted)
    for drive in chosen:
        if drive.drive not in records:
            raise MapRefused(f"drive {drive.drive.hex()} is not registered: start its node first")
    return [records[drive.drive] for drive in chosen]


@drive_app.command("add")
@in_cluster
def add_drive(
    cluster: ClusterOptions,
    drives: Annotated[
        list[str] | None, typer.Argument(metavar="DRIVE…", help="Start of its id, or NODE:PATH.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every registered drive.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take registered drives into the map; the keeper moves their share of shards to them."""
    settings = settings_of(cluster)

    def edit(
        now: ClusterMap, seen: list[DriveView], records: dict[DriveId, DriveRecord]
    ) -> ClusterMap:
        if every:
            chosen = [records[d.drive] for d in seen if d.state == "new"]
        else:
            chosen = _records_of(seen, records, drives or [])
        return add_drives(now, chosen)

    _change(settings, edit, dry_run=dry_run, as_json=as_json)


@drive_app.command("drain")
@in_cluster
def drain_drive(
    cluster: ClusterOptions,
    drives: Drives,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Empty drives: they take no writes, and the keeper moves their shards away."""
    settings = settings_of(cluster)
    _change(
        settings,
        lambda now, seen, _: drain(now, [d.drive for d in cluster_admin.choose(seen, drives)]),
        dry_run=dry_run,
        as_json=as_json,
    )


@drive_app.command("out")
@in_cluster
def put_drive_out(
    cluster: ClusterOptions,
    drives: Drives,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Declare drives that are away gone for good: the keeper rebuilds elsewhere what they held, and
    waits for them no longer; their folders are free for new drives."""
    settings = settings_of(cluster)

    async def work() -> Plan:
        async with cluster_admin.session(settings) as clients:
            seen = await cluster_admin.drives_of(clients)
            if dry_run:
                return plan_out(clients.topology.map, seen, drives)
            return await give_up(clients, seen, drives)

    _show_plan(run(work), dry_run=dry_run, as_json=as_json)


@drive_app.command("remove")
@in_cluster
def remove_drive(
    cluster: ClusterOptions,
    drives: Drives,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Forget drives that were drained, or put out, and whose shards are elsewhere now."""
    settings = settings_of(cluster)

    def edit(now: ClusterMap, seen: list[DriveView], _: dict[DriveId, DriveRecord]) -> ClusterMap:
        chosen = cluster_admin.choose(seen, drives)
        for drive in chosen:
            if drive.state == "draining" and drive.shards:
                raise MapRefused(f"drive {drive.drive.hex()} still holds {drive.shards} shards")
            if drive.state == "draining" and drive.condition in ("away", "silent"):
                raise MapRefused(f"drive {drive.drive.hex()} cannot be asked whether it is empty")
        return remove(now, [drive.drive for drive in chosen])

    _change(settings, edit, dry_run=dry_run, as_json=as_json)


@drive_app.command("replace")
@in_cluster
def replace_drive(
    cluster: ClusterOptions,
    old: Annotated[str, typer.Argument(help="The drive that is gone.")],
    new: Annotated[str, typer.Argument(help="A registered drive that is not in the map.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put a new drive in the place of an old one; the keeper rebuilds what that held."""
    settings = settings_of(cluster)

    def edit(
        now: ClusterMap, seen: list[DriveView], records: dict[DriveId, DriveRecord]
    ) -> ClusterMap:
        (gone,) = cluster_admin.choose(seen, [old])
        (record,) = _records_of(seen, records, [new])
        return replace(now, gone.drive, record)

    _change(settings, edit, dry_run=dry_run, as_json=as_json)


@node_app.command("list")
@in_cluster
def list_nodes(
    cluster: ClusterOptions,
    as_json: Json = False,
) -> None:
    """Nodes that are registered, and those that the map still expects."""
    settings = settings_of(cluster)

    async def work() -> list[dict[str, Any]]:
        async with cluster_admin.session(settings) as clients:
            drives = await cluster_admin.drives_of(clients)
            assert clients.member is not None
            nodes = clients.member.view.nodes
            names = sorted({*nodes, *(drive.node for drive in drives)})
            return [_node_shown(name, nodes.get(name), drives) for name in names]

    shown = run(work)
    if as_json:
        typer.echo(json.dumps(shown))
        return
    table = Table("node", "address", "host", "zone", "state", "drives")
    for node in shown:
        table.add_row(*(str(value) for value in node.values()))
    Console(width=160).print(table)


def _node_shown(name: str, record: Any, drives: list[DriveView]) -> dict[str, Any]:
    own = [drive for drive in drives if drive.node == name]
    silent = own and all(drive.condition in ("away", "silent") for drive in own)
    state = "away" if record is None else "silent" if silent else "live"
    return {
        "node": name,
        "address": record.address if record else "",
        "host": record.host if record else own[0].host,
        "zone": record.zone if record else own[0].zone,
        "state": state,
        "drives": len(own),
    }


@map_app.command("show")
@in_cluster
def show_map(
    cluster: ClusterOptions,
    as_json: Json = False,
) -> None:
    """The newest cluster map."""
    settings = settings_of(cluster)

    async def work() -> ClusterMap:
        async with cluster_admin.session(settings) as clients:
            return clients.topology.map

    newest = run(work)
    warnings = cluster_admin.warnings_of(newest)
    above, below = spread_of(newest)
    if as_json:
        document = {
            "epoch": newest.epoch,
            "open_epochs": list(newest.open_epochs),
            "scheme": str(newest.scheme),
            "classes": {name: str(scheme) for name, scheme in newest.classes},
            "partitions": newest.partition_count,
            "balanced": newest.balanced,
            "above_share": round(above, 4),
            "below_share": round(below, 4),
            "warnings": warnings,
            "drives": [
                {
                    "slot": d.slot,
                    "id": d.drive_id.hex(),
                    "node": d.node,
                    "host": d.host,
                    "zone": d.zone,
                    "weight": d.weight,
                    "pull": d.pull,
                    "state": d.state.value,
                }
                for d in newest.drives
            ],
        }
        typer.echo(json.dumps(document))
        return
    moving = f", moving from {list(newest.open_epochs)}" if newest.open_epochs else ""
    typer.echo(f"epoch {newest.epoch}{moving}, scheme {newest.scheme}")
    for name, scheme in newest.classes:
        typer.echo(f"storage class {name}: scheme {scheme}")
    rule = "balanced" if newest.balanced else "by weight alone"
    typer.echo(
        f"{newest.partition_count} partitions, {rule}: drives hold up to {above:.1%} more and"
        f" {below:.1%} less than their share"
    )
    table = Table("slot", "id", "node", "host", "zone", "weight", "state")
    for d in newest.drives:
        table.add_row(
            str(d.slot), d.drive_id.hex()[:12], d.node, d.host, d.zone, str(d.weight), d.state.value
        )
    Console(width=160).print(table)
    for warning in warnings:
        typer.echo(f"warning: {warning}")


@map_app.command("balance")
@in_cluster
def balance_map(
    cluster: ClusterOptions,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring every drive near its weight's share; the keeper moves what that takes. Only once all
    processes run a version that knows balanced maps."""
    settings = settings_of(cluster)
    _change(settings, lambda now, *_: balance(now), dry_run=dry_run, as_json=as_json)


@map_app.command("plan")
@in_cluster
def plan_map(
    cluster: ClusterOptions,
    change: Annotated[str, typer.Argument(help="add, drain, out or remove.")],
    drives: Drives,
    as_json: Json = False,
) -> None:
    """What a change would move, and what would be tolerated after it. Changes nothing."""
    commands: dict[str, Callable[..., None]] = {
        "add": add_drive,
        "drain": drain_drive,
        "out": put_drive_out,
        "remove": remove_drive,
    }
    if change not in commands:
        raise refuse("what is planned is add, drain, out or remove")
    commands[change](**asdict(cluster), drives=drives, dry_run=True, as_json=as_json)


@scheme_app.command("set")
@in_cluster
def set_scheme(
    cluster: ClusterOptions,
    scheme: Annotated[str, typer.Argument(metavar="K+M")],
    as_json: Json = False,
) -> None:
    """Store new objects under another scheme; stored ones keep theirs."""
    settings = settings_of(cluster)
    try:
        wanted = Scheme.parse(scheme)
    except ValueError as error:
        raise refuse(error) from None
    _change(settings, lambda now, *_: with_scheme(now, wanted), dry_run=False, as_json=as_json)
