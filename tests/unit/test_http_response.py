"""Response heads, admission and deadlines."""

import pytest

from gateway.http.admission import Admission
from gateway.http.deadlines import Deadline
from gateway.http.response import UnsafeHeaderError, encode_head, fixed_headers, has_body
from gateway.s3.message import S3Response


def encode(response: S3Response, *, keep_alive: bool = True) -> bytes:
    return encode_head(response, fixed="F: x\r\n", request_id="ID", length=7, keep_alive=keep_alive)


def test_a_head_has_all_parts_in_order() -> None:
    head = encode(S3Response(200, [("ETag", '"e"'), ("x-amz-meta-a", "v")]))
    assert head == (
        b"HTTP/1.1 200 OK\r\nF: x\r\nx-amz-request-id: ID\r\n"
        b'ETag: "e"\r\nx-amz-meta-a: v\r\nContent-Length: 7\r\n\r\n'
    )


def test_the_last_answer_says_close() -> None:
    assert encode(S3Response(404), keep_alive=False).endswith(b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb", "a\0b"])
def test_line_breaks_in_values_and_names_are_never_sent(value: str) -> None:
    with pytest.raises(UnsafeHeaderError):
        encode(S3Response(200, [("x-amz-meta-a", value)]))
    with pytest.raises(UnsafeHeaderError):
        encode(S3Response(200, [(value, "x"), ("b", "y")]))


def test_latin_1_goes_back_as_received_and_the_rest_as_utf_8() -> None:
    head = encode(S3Response(200, [("x-amz-meta-a", "v\xc3\xa9"), ("x-amz-meta-b", "λ")]))
    assert b"x-amz-meta-a: v\xc3\xa9\r\n" in head
    assert b"x-amz-meta-b: \xce\xbb\r\n" in head


def test_204_and_304_have_neither_body_nor_length() -> None:
    for status in (204, 304):
        assert not has_body("GET", status)
        assert b"Content-Length" not in encode(S3Response(status))
    assert not has_body("HEAD", 200)
    assert has_body("GET", 404)


def test_the_date_has_the_form_of_http() -> None:
    text = fixed_headers(now_seconds=0, host_id="h")
    assert text == ("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: Ostraka\r\nx-amz-id-2: h\r\n")


def test_admission_bounds_requests_and_body_memory() -> None:
    admission = Admission(
        requests_max=2, body_bytes_max=100, body_request_bytes_max=60, body_stream_bytes=20
    )
    assert admission.cost_bytes(None) == 60
    assert admission.cost_bytes(60) == 60
    assert admission.cost_bytes(1000) == 20, "too long to be gathered"
    assert admission.enter(60)
    assert not admission.enter(60), "the memory is spoken for"
    assert admission.enter(40)
    assert not admission.enter(0), "both requests are taken"
    admission.leave(60)
    assert admission.enter(50)
    assert admission.refused_total == 2


def test_a_deadline_passes_when_neither_state_nor_progress_change() -> None:
    deadline = Deadline(10)
    assert not deadline.passed(0, "a", 0, 5)
    assert not deadline.passed(4, "a", 9, 5)
    assert deadline.passed(5, "a", 9, 5), "9 bytes are no progress"
    assert not deadline.passed(6, "a", 10, 5)
    assert not deadline.passed(12, "b", 10, 5)
    deadline.rest()
    assert not deadline.passed(30, "b", 10, 5)
    assert deadline.passed(35, "b", 10, 5)
