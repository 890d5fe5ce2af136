"""The reference page of commands, options and environment variables, made from the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from ops.admin_cli import admin
from ops.cli import app
from ops.config import (
    HUNG_SECONDS,
    LIFECYCLE_DAY_SECONDS,
    NODE_CA,
    ROOT_ACCESS_KEY,
    ROOT_SECRET_KEY,
    SCRUB_PASS_SECONDS,
    SNAPSHOT_SECONDS,
)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, in the order of the help."""
    top: Any = typer.main.get_command(app)
    for name, command in top.commands.items():
        if name != "admin":
            yield from _walk(f"ostraka {name}", command)
    yield from _walk("ostraka admin", typer.main.get_command(admin))


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for inner, found in command.commands.items():
            yield from _walk(f"{name} {inner}", found)
    else:
        yield name, command


def variables() -> dict[str, str]:
    """Environment variables and what each is for."""
    known = {
        ROOT_ACCESS_KEY: "Root's access key: 3 to 128 letters and digits.",
        ROOT_SECRET_KEY: "Root's secret key: 8 to 128 printable characters without spaces.",
        LIFECYCLE_DAY_SECONDS: "For tests: how many seconds a day of lifecycle rules lasts for the"
        " keeper (0.1 to 86400, the default).",
        SCRUB_PASS_SECONDS: "In how many seconds the keeper verifies every shard once (1 to 31622400;"
        " 1209600, 14 days, is the default). Shorter passes read more of the drives.",
        SNAPSHOT_SECONDS: "How many seconds apart the keeper copies the whole metadata to the drives (1 to"
        " 31622400; 86400, a day, is the default); changes are copied twice a minute.",
        HUNG_SECONDS: "After how many seconds `serve` and `gateway` replace a process that stands still (5"
        " to 3600; 30 is the default). The storage process has twice as long.",
    }
    known[NODE_CA] = "Who signs the nodes' certificates, PEM: the wire to the nodes is TLS then."
    for _, command in commands():
        for parameter in command.params:
            if parameter.envvar:
                known[str(parameter.envvar)] = f"`{parameter.opts[0]}`: {parameter.help}"
    return known


def page() -> str:
    """`ops/docs/configuration.md`."""
    lines = [
        "# Commands, options, environment",
        "",
        "Options are all there is: no configuration file. Secrets come in the environment or in"
        " files, never as options. This page is generated from the code by"
        " `python -m ops.reference`.",
        "",
        "## Environment",
        "",
        "A variable that begins with `OSTRAKA_` and is not listed here is refused at start.",
        "",
        "| variable | meaning |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in variables().items()]
    for name, command in commands():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        words = [name, *(_argument(parameter) for parameter in arguments)]
        summary = (command.help or "").partition("\n\n")[0].replace("\n", " ")
        lines += ["", f"## `{' '.join(words)}`", "", summary, ""]
        options = [p for p in command.params if p.param_type_name == "option"]
        if options:
            lines += ["| option | default | meaning |", "|---|---|---|"]
            lines += [_option(parameter) for parameter in options]
    return "\n".join(lines) + "\n"


def _argument(parameter: Any) -> str:
    shown = parameter.metavar or str(parameter.name).upper()
    return shown if parameter.required else f"[{shown}]"


def _kind(parameter: Any) -> str:
    kinds = {int: "N", float: "NUMBER", Path: "PATH"}
    return kinds.get(parameter.type_descriptor.annotation, "TEXT")


def _option(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif default is None or default is False or default == "" or callable(default):
        shown = ""
    else:
        shown = f"`{default}`"
    value = "" if parameter.is_flag else f" {parameter.metavar or _kind(parameter)}"
    repeated = " Repeatable." if parameter.multiple and "repeat" not in parameter.help else ""
    names = ", ".join(f"`{name}{value}`" for name in parameter.opts)
    return f"| {names} | {shown} | {parameter.help or ''}{repeated} |"
