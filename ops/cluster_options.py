"""How a command is told where its cluster is: the options that all such commands share."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from ops.config import CLUSTER_KEY_FILE, ETCD, ETCD_CA, ETCD_CERT, ETCD_KEY
from ops.settings import ClusterSettings

P = ParamSpec("P")
T = TypeVar("T")

Etcd = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", envvar=ETCD, help="A member of etcd; repeat for each."),
]
EtcdCa = Annotated[
    Path | None, typer.Option(envvar=ETCD_CA, help="Who signs etcd's certificates, PEM.")
]
EtcdCert = Annotated[
    Path | None, typer.Option(envvar=ETCD_CERT, help="Our certificate for etcd, PEM.")
]
EtcdKey = Annotated[Path | None, typer.Option(envvar=ETCD_KEY, help="Its private key, PEM.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar=CLUSTER_KEY_FILE,
        help="The cluster key: 32 random bytes that every process of the cluster has.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """As they were given; each field is an option of that name."""

    etcd: Etcd
    etcd_ca: EtcdCa
    etcd_cert: EtcdCert
    etcd_key: EtcdKey
    cluster_key_file: KeyFile

    def settings(self) -> ClusterSettings:
        """What they lead to. Raises ConfigError."""
        from ops.cluster_settings import cluster_settings

        return cluster_settings(
            self.etcd or [], self.etcd_ca, self.etcd_cert, self.etcd_key, self.cluster_key_file
        )


def in_cluster(command: Callable[Concatenate[ClusterOptions, P], T]) -> Callable[..., T]:
    """The command for typer: instead of its first parameter it has the options of `ClusterOptions`,
    after its own."""
    first, *own = inspect.signature(command).parameters.values()
    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=field.type
        )
        for field in fields(ClusterOptions)
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + options

    @functools.wraps(command)
    def called(**given: Any) -> T:
        cluster = ClusterOptions(**{option.name: given.pop(option.name) for option in options})
        return command(**{first.name: cluster}, **given)  # type: ignore[call-arg, arg-type]

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called
