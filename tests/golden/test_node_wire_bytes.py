"""The node's messages, byte for byte: processes of two versions may talk to each other."""

import msgspec
import pytest

from placement.errors import ProtocolError
from placement.ids import BlobId, DriveId
from placement.metastore.port import Put, absent
from storage_node import wire
from storage_node.joint import JointMessage
from storage_node.port import (
    DriveCondition,
    DriveReport,
    Outcome,
    PutShard,
    ShardId,
    ShardInfo,
    StagedShard,
)
from storage_node.wire import Reader, Verb

DRIVE, BLOB = DriveId(b"d" * 16), BlobId(b"b" * 16)
SHARD = ShardId(BLOB, 3)
PUT = PutShard(DRIVE, BLOB, 3, b"env", 0, 13)
INFO = ShardInfo(DRIVE, SHARD, 70_000, b"env", 1.5)
REPORT = DriveReport(DRIVE, "/d1", DriveCondition.FULL, 1 << 40, 1 << 39, 7, 1, 2, "full", 1.5)

D, B = "c410" + "64" * 16, "c410" + "62" * 16
"""A drive and a blob in MessagePack: 16 bytes of binary."""

MESSAGES = [
    (Verb.PUT, [PUT], f"01 91 96 {D} {B} 03 c403656e76 00 0d"),
    (Verb.OPEN, [(DRIVE, BLOB, 3)], f"01 91 93 {D} {B} 03"),
    (Verb.APPEND, (DRIVE, 300), f"01 92 {D} cd012c"),
    (Verb.COMMIT, [(DRIVE, 300, b"env", 1 << 20)], f"01 91 94 {D} cd012c c403656e76 ce00100000"),
    (Verb.ABORT, [(DRIVE, 1)], f"01 91 92 {D} 01"),
    (Verb.GET, [(DRIVE, BLOB, 3, 8, 9)], f"01 91 95 {D} {B} 03 08 09"),
    (Verb.LOCATE, [BLOB], f"01 91 {B}"),
    (Verb.STAT, ([(DRIVE, BLOB, 3)], True), f"01 92 91 93 {D} {B} 03 c3"),
    (Verb.DELETE, [(DRIVE, BLOB, 3)], f"01 91 93 {D} {B} 03"),
    (Verb.BEGIN_TERM, 300, "01 cd012c"),
    (Verb.DELETE_SURPLUS, (300, [(DRIVE, BLOB, 3)]), f"01 92 cd012c 91 93 {D} {B} 03"),
    (Verb.LIST, (DRIVE, b"", 0, 100), f"01 94 {D} c400 00 64"),
    (Verb.REPORT_DAMAGE, (DRIVE, BLOB, 3), f"01 93 {D} {B} 03"),
    (Verb.DAMAGED, 10, "01 0a"),
    (Verb.REPORTS, None, "01 c0"),
    (Verb.REPORTS, wire.REPORTS_WITH_LOAD, "01 01"),
    (
        Verb.PUT_AND_COMMIT,
        JointMessage([PUT], (absent(b"k"),), (Put(b"k", b"v"),), ()),
        f"01 94 91 96 {D} {B} 03 c403656e76 00 0d 91 95 c4016b 02 00 00 c0 91 94 00 c4016b c40176 00 90",
    ),
]


@pytest.mark.parametrize(("verb", "message", "expected"), MESSAGES)
def test_requests(verb: Verb, message: object, expected: str) -> None:
    assert wire.encode(message) == bytes.fromhex(expected), verb.name


def test_verbs_and_outcomes_keep_their_numbers() -> None:
    assert {verb.name: verb.value for verb in Verb} == {
        "PUT": 1, "OPEN": 2, "APPEND": 3, "COMMIT": 4, "ABORT": 5, "GET": 6, "LOCATE": 7,
        "STAT": 8, "DELETE": 9, "LIST": 10, "REPORT_DAMAGE": 11, "DAMAGED": 12, "REPORTS": 13,
        "STATS": 14, "PUT_AND_COMMIT": 15, "BEGIN_TERM": 16, "DELETE_SURPLUS": 17,
    }  # fmt: skip
    assert {outcome.name: outcome.value for outcome in Outcome} == {
        "STORED": 0, "DRIVE_FAILED": 1, "DRIVE_FULL": 2, "MISSING": 3, "DAMAGED": 4, "DONE": 5,
    }  # fmt: skip
    assert [(error.name, error.value) for error in wire.NodeErrorCode] == [
        ("BUSY", 16),
        ("BAD_REQUEST", 17),
        ("NO_SUCH_DRIVE", 18),
        ("TERM_IS_OVER", 19),
    ]


def test_answers() -> None:
    assert wire.encode_outcomes(list(Outcome)) == bytes.fromhex("01 00 01 02 03 04 05")
    assert wire.encode_outcomes([Outcome.STORED] * 3) == bytes.fromhex("01 00 00 00")
    info = f"96 {D} {B} 03 ce00011170 c403656e76 cb3ff8000000000000"
    assert wire.encode(wire.info_to_wire(INFO)) == bytes.fromhex(f"01 {info}")
    assert wire.encode(wire.info_or_outcome_to_wire(Outcome.MISSING)) == bytes.fromhex("01 03")
    staged = StagedShard(DRIVE, SHARD, 300, "/d1/tmp/1")
    assert wire.encode(wire.staged_to_wire(staged)) == bytes.fromhex(
        "01 92 cd012c a9" + b"/d1/tmp/1".hex()
    )
    fields = (
        f"{D} a3{b'/d1'.hex()} a4{b'full'.hex()} cf0000010000000000 cf0000008000000000"
        f" 07 01 02 a4{b'full'.hex()}"
    )
    early = wire.encode(wire.report_to_wire(REPORT, with_load=False))
    assert early == bytes.fromhex(f"01 99 {fields}")
    late = wire.encode(wire.report_to_wire(REPORT, with_load=True))
    assert late == bytes.fromhex(f"01 9a {fields} cb3ff8000000000000")


def test_answers_are_read_back() -> None:
    assert wire.decode_outcomes(bytes.fromhex("01 00 01 02 03 04 05"), 6) == tuple(Outcome)
    infos: Reader[wire.InfoTuple] = Reader(wire.InfoTuple)
    assert wire.info_from_wire(infos(wire.encode(wire.info_to_wire(INFO)))) == INFO
    reports: Reader[wire.ReportMessage] = Reader(wire.ReportMessage)
    late = wire.encode(wire.report_to_wire(REPORT, with_load=True))
    assert wire.report_from_wire(reports(late)) == REPORT
    early = wire.encode(wire.report_to_wire(REPORT, with_load=False))
    told = wire.report_from_wire(reports(early))
    assert told == msgspec.structs.replace(REPORT, busy=0.0)
    assert wire.info_or_outcome_from_wire(3) is Outcome.MISSING


@pytest.mark.parametrize(
    "data",
    [
        "",
        "00",
        "02 00",
        "01",
        "01 93",
        f"01 93 {D} {B}",
        f"01 93 {D} {B} a161",
        f"01 93 {D} {B} 03 00",
    ],
)
def test_other_bytes_are_refused(data: str) -> None:
    shards: Reader[wire.ShardTuple] = Reader(wire.ShardTuple)
    with pytest.raises(ProtocolError):
        shards(bytes.fromhex(data))


@pytest.mark.parametrize("data", ["", "01", "01 00 00", "02 00", "01 06", "01 ff"])
def test_other_outcomes_are_refused(data: str) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_outcomes(bytes.fromhex(data), 1)


def test_conditions_and_outcomes_of_a_newer_node_are_refused() -> None:
    with pytest.raises(ProtocolError):
        wire.outcome_from_wire(6)
    reports: Reader[wire.ReportMessage] = Reader(wire.ReportMessage)
    message = reports(wire.encode(wire.report_to_wire(REPORT, with_load=True)))
    with pytest.raises(ProtocolError):
        wire.report_from_wire(msgspec.structs.replace(message, condition="melting"))
