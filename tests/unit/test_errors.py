"""The error table and the XML of errors."""

from lxml import etree

from gateway.s3.errors import ErrorCode, S3Error, invalid_argument, render_error


def test_every_error_has_a_code_a_status_and_a_message() -> None:
    for code in ErrorCode:
        assert code.code.replace(".", "").isalnum()
        assert 300 <= code.status < 600
        assert code.message
    assert len({(code.code, code.status, code.message) for code in ErrorCode}) == len(
        list(ErrorCode)
    )


def test_rendering_escapes_and_keeps_details() -> None:
    error = invalid_argument("a<b", 'x&"\x01', "No <good>")
    body = render_error(error, "/b/k\ud800", "REQ", "HOST")
    assert body.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InvalidArgument')
    tree = etree.fromstring(body.replace(b"&#x1;", b""))
    assert tree.findtext("Message") == "No <good>"
    assert tree.findtext("ArgumentName") == "a<b"
    assert tree.findtext("ArgumentValue") == 'x&"'
    assert tree.findtext("RequestId") == "REQ"
    assert tree.findtext("HostId") == "HOST"


def test_a_message_may_be_replaced() -> None:
    error = S3Error(ErrorCode.NO_SUCH_KEY, "gone", headers={"x": "y"})
    assert str(error) == error.message == "gone"
    assert S3Error(ErrorCode.NO_SUCH_KEY).message == ErrorCode.NO_SUCH_KEY.message
    assert error.headers == {"x": "y"}
