"""Who is there: what nodes say of themselves and their drives in the metadata store.

    m/cluster               the cluster's id, and a check of the cluster key
    m/node/<name>           a node process, while its lease lives
    m/drive/<drive id 16>   a drive and the node that serves it, under the same lease
    m/served/<node>, <path> which drive a node served last from a folder; outlives the lease
    m/lead/<duty>           which keeper leads a duty, under that keeper's lease
    m/progress/<duty>       what the leader last said of its work

A drive carries its own identity and may move between hosts: the record says where it is now. The
cluster map says what it is for.
"""

import hashlib
import hmac
from typing import TypeVar

import msgspec

from placement.clock import Randomness
from placement.errors import PlacementError
from placement.ids import DriveId
from placement.metastore.port import Metastore, Put, Txn, absent

CLUSTER = b"m/cluster"
NODES = b"m/node/"
DRIVES = b"m/drive/"
SERVED = b"m/served/"
LEADERS = b"m/lead/"
PROGRESS = b"m/progress/"
VERSION = 1
_KEY_CHECK = b"ostraka cluster key check"


class MembershipRefused(PlacementError):
    """A process may not be a member; the message is one sentence for the operator."""


class _Stored(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """Fields are only appended, with defaults."""


class ClusterRecord(_Stored, frozen=True, kw_only=True):
    """The cluster itself. `key_check` tells whether a process has the right key, and nothing else."""

    cluster_id: bytes
    incarnation: int
    key_check: bytes


class NodeRecord(_Stored, frozen=True, kw_only=True):
    """A node process. `run` differs from start to start; `zone` and `host` are failure domains."""

    name: str
    address: str
    host: str
    zone: str
    run: bytes
    started_ms: int
    tls: bool = False
    boot_id: str = ""
    """The kernel's: who has the same one may look for the drives' files."""


class ServedRecord(_Stored, frozen=True, kw_only=True):
    """The drive that a node served last from a folder, and the slot that its identity names."""

    drive: bytes
    slot: int


class DriveRecord(_Stored, frozen=True, kw_only=True):
    """A drive that a node serves. `condition` as in the node's report."""

    drive: bytes
    node: str
    address: str
    host: str
    zone: str
    path: str
    condition: str
    capacity_bytes: int
    free_bytes: int = 0
    """When it was last written down; the node's reports are exact."""


R = TypeVar("R", bound=_Stored)
_encoder = msgspec.msgpack.Encoder()


def encode(record: _Stored) -> bytes:
    """Version byte, then MessagePack."""
    return bytes([VERSION]) + _encoder.encode(record)


def decode(kind: type[R], value: bytes) -> R:
    """Raises MembershipRefused for bytes that this version does not read."""
    if not value or value[0] != VERSION:
        raise MembershipRefused("a membership record was written by another version of Ostraka")
    try:
        return msgspec.msgpack.decode(value[1:], type=kind)
    except msgspec.MsgspecError as error:
        raise MembershipRefused(f"a membership record is malformed: {error}") from error


def node_key(name: str) -> bytes:
    """Key of a node's record."""
    return NODES + name.encode()


def drive_key(drive: DriveId | bytes) -> bytes:
    """Key of a drive's record."""
    return DRIVES + drive


async def join_cluster(
    metastore: Metastore, cluster_key: bytes, randomness: Randomness, *, cluster_id: bytes = b""
) -> ClusterRecord:
    """The cluster's record, made by whichever process comes first, under `cluster_id` if given.

    Raises MembershipRefused when our key is not the cluster's, MetastoreUnavailable.
    """
    for _ in range(4):
        (found,) = await metastore.get_many([CLUSTER])
        if found is not None:
            record = decode(ClusterRecord, found.value)
            if not has_key(record, cluster_key):
                raise MembershipRefused("the cluster key is not the one of this cluster")
            return record
        first = cluster_record(cluster_id or randomness.token(16), 1, cluster_key)
        await metastore.txn(Txn((absent(CLUSTER),), (Put(CLUSTER, encode(first)),)))
    raise MembershipRefused("the cluster's record comes and goes")


def cluster_record(cluster_id: bytes, incarnation: int, cluster_key: bytes) -> ClusterRecord:
    """The record of a cluster with that key."""
    return ClusterRecord(
        cluster_id=cluster_id,
        incarnation=incarnation,
        key_check=_check_of(cluster_key, cluster_id),
    )


def has_key(record: ClusterRecord, cluster_key: bytes) -> bool:
    """Whether this is the key of that cluster."""
    return hmac.compare_digest(record.key_check, _check_of(cluster_key, record.cluster_id))


def _check_of(cluster_key: bytes, cluster_id: bytes) -> bytes:
    return hmac.digest(cluster_key, _KEY_CHECK + cluster_id, hashlib.sha256)
