"""`ostraka admin object lost`: spoken to the admin port, of `serve` and of a cluster alike."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ops.admin_options import URL_DEFAULT, Ask, Dir, Json, Url, with_query
from ops.cluster_admin_cli import object_app
from ops.limits_cli import shown_size

_PATH = "/api/v1/lost-objects"


def register(ask: Ask) -> None:
    """Add the command to `object`."""

    @object_app.command("lost")
    def lost(
        bucket: Annotated[str, typer.Argument(metavar="BUCKET", help="Default: all.")] = "",
        prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
        url: Url = URL_DEFAULT,
        directory: Dir = None,
        as_json: Json = False,
    ) -> None:
        """Objects and versions that cannot be read with the drives that are there, and which drives
        would bring them back. Asks the nodes where the shards of every object are."""

        def pages() -> Iterator[dict[str, Any]]:
            after = ""
            while True:
                asked = {"after": after, "bucket": bucket, "prefix": prefix}
                page = ask(url, directory, "GET", with_query(_PATH, asked))
                yield page
                after = page["after"]
                if not after:
                    return

        (_print_json if as_json else _print)(pages())


def _print_json(pages: Iterator[dict[str, Any]]) -> None:
    """One document, written as it comes: there may be many."""
    examined = count = 0
    silent: set[str] = set()
    opening = '{"objects": ['
    for page in pages:
        for each in page["objects"]:
            typer.echo(f"{',' if count else opening}\n{json.dumps(each)}", nl=False)
            count += 1
        examined += page["examined"]
        silent.update(page["silent"])
    end = json.dumps({"examined": examined, "lost": count, "silent": sorted(silent)})
    typer.echo(f"{'' if count else opening}], {end[1:]}")


def _print(pages: Iterator[dict[str, Any]]) -> None:
    examined = count = 0
    silent: set[str] = set()
    drives: dict[str, dict[str, str]] = {}
    helped: Counter[str] = Counter()
    with Console(stderr=True).status("") as status:
        for page in pages:
            for each in page["objects"]:
                typer.echo(lost_line(each))
                drives |= {drive["id"]: drive for drive in each["drives"]}
                helped.update(drive["id"] for drive in each["drives"])
                count += 1
            examined += page["examined"]
            silent.update(page["silent"])
            status.update(f"{examined:,} objects looked at, {count:,} lost")
    if drives:
        table = Table("drive", "id", "node", "host", "condition", "may hold shards of")
        for drive_id, objects in helped.most_common():
            drive = drives[drive_id]
            table.add_row(
                drive["path"], drive_id[:12], drive["node"], drive["host"], drive["condition"],
                f"{objects:,} objects",
            )  # fmt: skip
        Console(width=160).print(table)
    for node in sorted(silent):
        typer.echo(f"warning: node {node} did not answer; its shards were taken for missing")
    typer.echo(f"{examined:,} objects and versions looked at, {count:,} lost")


def lost_line(lost: dict[str, Any]) -> str:
    """One lost object, for people; a key with control characters is quoted."""
    name = f"{lost['bucket']}/{lost['key']}"
    words = [
        name if name.isprintable() else json.dumps(name),
        f"version {lost['version_id']}{'' if lost['is_latest'] else ' (not current)'}",
        shown_size(lost["size_bytes"]),
        f"{lost['shards_left']} of {lost['shards_needed']} shards needed are left",
    ]
    if lost["blobs_lost"] > 1:
        words[-1] = f"{lost['blobs_lost']} parts lost, of the worst {words[-1]}"
    drives = [drive["path"] or f"{drive['node']}:{drive['id'][:12]}" for drive in lost["drives"]]
    if drives:
        wanted = lost["shards_needed"] - lost["shards_left"]
        some = f"{wanted} or more" if lost["blobs_lost"] > 1 else str(wanted)
        words.append(f"to be read it takes {some} of {', '.join(drives)}")
    else:
        words.append("no drive that is away would hold the others")
    return ", ".join(words)
