"""multipart/form-data whole, byte by byte, cut off, oversized, and with what follows the file."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.form import (
    FORM_LIMIT_BYTES,
    FormFile,
    FormParser,
    boundary_of,
    is_form,
    read_form,
)
from tests.unit.post_forms import BOUNDARY, FORM_TYPE, PlainBody, form

DELIMITER = b"\r\n--" + BOUNDARY.encode()


async def drain(file: FormFile, piece_bytes: int) -> bytes:
    out = b""
    buffer = bytearray(piece_bytes)
    while count := await file.read_into(memoryview(buffer)):
        out += buffer[:count]
        if count < piece_bytes:
            break
    assert await file.read_into(memoryview(buffer)) == 0
    return out


def read(data: bytes, piece_bytes: int = 1000) -> tuple[list[tuple[str, bytes]], str | None, bytes]:
    async def main() -> tuple[list[tuple[str, bytes]], str | None, bytes]:
        parser, file = await read_form(PlainBody(data), boundary_of(FORM_TYPE))
        content = await drain(file, piece_bytes)
        assert len(content) <= file.size_bytes
        return parser.fields, parser.file_name, content

    return asyncio.run(main())


def refused(data: bytes, piece_bytes: int = 1000) -> ErrorCode:
    with pytest.raises(S3Error) as raised:
        read(data, piece_bytes)
    return raised.value.code


nasty = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from([b"\r", b"\n", b"-", b"--", DELIMITER[:-1], DELIMITER[2:], b"x"]),
        max_size=12,
    ).map(b"".join),
).filter(lambda data: DELIMITER not in b"\r\n" + data)


@given(
    fields=st.lists(
        st.tuples(st.from_regex(r"[a-z][a-z-]{0,9}", fullmatch=True), nasty), max_size=5
    ),
    data=nasty,
    piece_bytes=st.integers(1, 700),
    after=st.sampled_from([(), (("submit", "Upload"),)]),
    end=st.sampled_from([b"--\r\n", b"--", b"--\r\nepilogue"]),
)
def test_fields_and_file_come_back_whatever_is_in_them(
    fields: list[tuple[str, bytes]],
    data: bytes,
    piece_bytes: int,
    after: tuple[tuple[str, str], ...],
    end: bytes,
) -> None:
    fields = [(name, value) for name, value in fields if name != "file"]
    whole = form(fields, data, after=after, end=end)
    assert read(whole, piece_bytes) == (fields, "photo.jpg", data)


@given(data=nasty, size=st.integers(1, 9))
def test_the_parser_does_not_mind_how_its_bytes_come(data: bytes, size: int) -> None:
    whole = form([("key", "a"), ("Acl", b"private")], data)
    parser = FormParser(BOUNDARY.encode())
    fed = 0
    while not parser.stopped:
        parser.feed(whole[fed : fed + size])
        fed += size
    assert parser.fields == [("key", b"a"), ("acl", b"private")]
    assert parser.rest + whole[fed:] == data + DELIMITER + b"--\r\n"


def test_a_large_file_passes_in_large_and_in_odd_pieces() -> None:
    data = bytes(range(256)) * 5000
    for piece_bytes in (len(data) + 1, len(data), 4096, 77_777):
        assert read(form([("key", "k")], data), piece_bytes)[2] == data


def test_a_form_cut_anywhere_is_refused() -> None:
    whole = form([("key", "k"), ("b", "")], b"content", end=b"--")
    for length in range(len(whole)):
        assert refused(whole[:length]) is ErrorCode.MALFORMED_POST_REQUEST, length


def test_all_but_the_file_is_bounded() -> None:
    big = "v" * FORM_LIMIT_BYTES
    assert refused(form([("a", big)], b"x")) is ErrorCode.MAX_POST_PRE_DATA_LENGTH_EXCEEDED
    many = [(f"f{i}", "") for i in range(400)]
    assert refused(form(many, b"x")) is ErrorCode.MAX_POST_PRE_DATA_LENGTH_EXCEEDED
    assert read(form([("a", "v" * (FORM_LIMIT_BYTES - 400))], b"x"))[2] == b"x"
    late = form([], b"x", after=[("submit", big)])
    assert refused(late) is ErrorCode.MAX_POST_PRE_DATA_LENGTH_EXCEEDED
    assert refused(b"p" * (FORM_LIMIT_BYTES + 1)) is ErrorCode.MAX_POST_PRE_DATA_LENGTH_EXCEEDED


def test_a_form_has_exactly_one_file() -> None:
    assert refused(form([("key", "k")], None)) is ErrorCode.INCORRECT_NUMBER_OF_FILES
    assert refused(form([], b"1", after=[("file", "2")])) is ErrorCode.INCORRECT_NUMBER_OF_FILES


@pytest.mark.parametrize(
    "broken",
    [
        b"--" + BOUNDARY.encode() + b"x\r\n",
        b"--" + BOUNDARY.encode() + b"\r\n\r\nvalue",
        b"--" + BOUNDARY.encode() + b"\r\nContent-Type: a/b\r\n\r\nvalue",
        b"--" + BOUNDARY.encode() + b"\r\nnonsense\r\n\r\nvalue",
        b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: form-data; name=\xff\r\n\r\nvalue",
        b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: attachment; name=a\r\n\r\nvalue",
        b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: form-data; name=""\r\n\r\nvalue',
        b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: form-data; name="a\r\n\r\nvalue',
        b"key=value",
        b"",
    ],
)
def test_what_is_no_form_is_refused(broken: bytes) -> None:
    assert refused(broken + form([], b"x")[:0] + DELIMITER) is ErrorCode.MALFORMED_POST_REQUEST


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ('filename="a b.txt"', "a b.txt"),
        ("filename=plain.txt", "plain.txt"),
        (r'filename="C:\dir\a.txt"', r"C:\dir\a.txt"),
        (r'filename="say \"hi\".txt"', 'say "hi".txt'),
        ('filename="semi;colon.txt"', "semi;colon.txt"),
        ('filename="é.txt"', "é.txt"),
        ("filename*=utf-8''%C3%A9.txt", "é.txt"),
        ('FileName="x"', "x"),
        ("a=b", ""),
    ],
)
def test_file_names_of_many_clients(parameters: str, name: str) -> None:
    whole = form([], b"x").replace(b'filename="photo.jpg"', parameters.encode())
    assert read(whole)[1] == name


def test_the_boundary_is_taken_from_the_content_type() -> None:
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b"') == b"a b"
    assert is_form(" Multipart/Form-Data ; boundary=x")
    assert not is_form("application/x-www-form-urlencoded")
    for text in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "m; boundary=" + "x" * 300,
    ):
        with pytest.raises(S3Error) as raised:
            boundary_of(text)
        assert raised.value.code is ErrorCode.MALFORMED_POST_REQUEST


@given(
    size=st.integers(0, 40),
    least=st.integers(0, 40),
    most=st.integers(0, 40),
    piece_bytes=st.integers(1, 50),
)
def test_bounds_of_the_size_hold(size: int, least: int, most: int, piece_bytes: int) -> None:
    async def main() -> ErrorCode | None:
        _, file = await read_form(PlainBody(form([], b"x" * size)), BOUNDARY.encode())
        file.bounds = (least, most)
        try:
            assert await drain(file, piece_bytes) == b"x" * size
        except S3Error as error:
            return error.code
        return None

    outcome = asyncio.run(main())
    if size > most:
        assert outcome is ErrorCode.ENTITY_TOO_LARGE
    elif size < least:
        assert outcome is ErrorCode.ENTITY_TOO_SMALL
    else:
        assert outcome is None
