"""Records of a segment: golden bytes, scanning of torn and decayed files."""

import os
from pathlib import Path

import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.ids import DriveId
from storage_node.files import RealFiles
from storage_node.record import (
    PADDING,
    SEGMENT_HEADER_SIZE_BYTES,
    RecordKind,
    ScannedRecord,
    decode_segment_header,
    encode_head,
    encode_segment_header,
    parse_record,
    record_size_bytes,
    scan_segment,
    shard_key,
)

KEY = shard_key(bytes(range(16)), 2)
GOLDEN = (
    "a74f735201010200070000004000000000010203040506070809 0a0b0c0d0e0f"
    "03000000040000000000000000000000"
)


def record(offset: int, payload: bytes, envelope: bytes = b"env", segment: int = 7) -> bytes:
    head = encode_head(
        RecordKind.PUT, segment, offset, KEY, envelope, len(payload),
        xxhash.xxh3_64_intdigest(payload),
    )  # fmt: skip
    data = head + payload
    return data + PADDING[record_size_bytes(len(envelope), len(payload)) - len(data)]


def scan(folder: Path, data: bytes, segment: int = 7, start: int = 64) -> list[ScannedRecord]:
    path = folder / "x.seg"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(scan_segment(RealFiles(), fd, segment, start, len(data)))
    finally:
        os.close(fd)


def test_a_record_has_these_bytes() -> None:
    data = record(64, b"data")
    assert data[:48] == bytes.fromhex(GOLDEN)
    assert data[48:56] == xxhash.xxh3_64_intdigest(b"data").to_bytes(8, "little")
    assert data[56:64] == xxhash.xxh3_64_intdigest(data[:56] + b"env").to_bytes(8, "little")
    assert data[64:] == b"envdata\0"


def test_a_segment_header_reads_back_and_decay_is_noticed() -> None:
    header = encode_segment_header(DriveId(bytes(range(16))), 9)
    assert len(header) == SEGMENT_HEADER_SIZE_BYTES
    assert decode_segment_header(header + b"more") == (bytes(range(16)), 9)
    for at in range(len(header)):
        assert (
            decode_segment_header(header[:at] + bytes([header[at] ^ 4]) + header[at + 1 :]) is None
        )
        assert decode_segment_header(header[:at]) is None


def test_no_flipped_bit_of_header_or_envelope_passes_and_one_of_the_payload_is_told() -> None:
    data = record(64, b"data" * 5)
    for at in range(len(data)):
        found = parse_record(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :], 0, 7, 64)
        if at < 67:
            assert found is None
        elif at < 87:
            assert found is not None
            assert not found.intact


def test_a_record_of_another_place_or_segment_is_not_taken() -> None:
    data = record(64, b"data")
    assert parse_record(data, 0, 7, 64) is not None
    assert parse_record(data, 0, 8, 64) is None
    assert parse_record(data, 0, 7, 72) is None
    for cut in range(len(data)):
        assert parse_record(data[:cut], 0, 7, 64) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=8),
    st.data(),
)
def test_scanning_finds_every_record_but_the_broken_one(
    tmp_path_factory: object, payloads: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("scan")  # type: ignore[attr-defined]
    image, places = bytes(64), []
    for payload in payloads:
        places.append(len(image))
        image += record(len(image), payload)
    broken = data.draw(st.integers(0, len(places) - 1))
    at = places[broken] + data.draw(st.integers(0, 66))
    image = image[:at] + bytes([image[at] ^ 1]) + image[at + 1 :] + bytes(4096)
    found = [r.offset for r in scan(folder, image)]
    assert found == places[:broken] + places[broken + 1 :]


def test_scanning_goes_on_over_the_windows_edge(tmp_path: Path) -> None:
    image, places = bytearray(64), []
    payload = os.urandom(100_000)
    while len(image) < 9 << 20:
        places.append(len(image))
        image += record(len(image), payload)
    image += bytes(5 << 20)
    places.append(len(image))
    image += record(len(image), b"last, behind a hole")
    assert [r.offset for r in scan(tmp_path, bytes(image))] == places
