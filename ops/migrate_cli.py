"""`ostraka admin migrate`: a store of one machine becomes the first node of a cluster."""

import json
import socket
from pathlib import Path
from typing import Annotated

import typer

from ops.admin_options import Json
from ops.cluster_admin_cli import run, settings_of
from ops.cluster_options import ClusterOptions, Etcd, EtcdCa, EtcdCert, EtcdKey


def register(admin: typer.Typer) -> None:
    """Add the command to `ostraka admin`."""
    admin.command("migrate")(migrate)


def migrate(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of `serve`, which does not run.")
    ],
    host_label: Annotated[
        str | None,
        typer.Option(help="As `ostraka node` will have it: this host's name by default."),
    ] = None,
    zone: Annotated[str, typer.Option(help="As `ostraka node` will have it.")] = "default",
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Give an unfinished copy up: `serve` may run again.")
    ] = False,
    etcd: Etcd = None,
    etcd_ca: EtcdCa = None,
    etcd_cert: EtcdCert = None,
    etcd_key: EtcdKey = None,
    as_json: Json = False,
) -> None:
    """Copy the metadata of a store of one machine into an empty etcd. Run it again to go on."""
    from ops import migration

    path = directory.absolute()
    settings = settings_of(
        ClusterOptions(
            etcd=etcd,
            etcd_ca=etcd_ca,
            etcd_cert=etcd_cert,
            etcd_key=etcd_key,
            cluster_key_file=path / "cluster.key",
        )
    )
    if cancel:
        run(lambda: migration.cancel(path, settings))
        typer.echo(json.dumps({"cancelled": True}) if as_json else f"{path} may be served again")
        return
    place = migration.Place(host_label or socket.gethostname(), zone)
    done = run(
        lambda: migration.migrate(path, settings, place, lambda words: typer.echo(words, err=True))
    )
    if as_json:
        typer.echo(json.dumps(done.shown()))
        return
    typer.echo(f"{done.keys} keys are in etcd, all compared; the map has epoch {done.epoch}")
    typer.echo("now start, on this host and with the same options of etcd:")
    options = " ".join(f"--drive {drive}" for drive in done.drives)
    typer.echo(
        f"  ostraka node --host-label {place.host} --zone {place.zone}"
        f" --cluster-key-file {path / 'cluster.key'} {options}"
    )
    typer.echo("then `ostraka gateway` and `ostraka keeper`")
