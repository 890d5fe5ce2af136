"""Answers of the query APIs as XML: values become elements, lists become members."""

from collections.abc import Mapping, Sequence
from typing import Final, Union

from gateway.s3.message import S3Response
from gateway.s3.xml import element

NAMESPACES: Final = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}
_HEADERS: Final = (("Content-Type", "text/xml"),)


class Entries(dict[str, int]):
    """A map, which is written as entries of key and value, where a mapping is a structure."""


Value = Union[str, int, bool, "Mapping[str, Value | None]", "Sequence[Value]"]
Answer = Mapping[str, Value | None]
"""The members of a result; those that are None are left out."""


def _render(name: str, value: Value | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return element(name, value)
    if isinstance(value, bool):
        return element(name, "true" if value else "false")
    if isinstance(value, int):
        return element(name, str(value))
    if isinstance(value, Entries):
        inside = "".join(
            f"<entry>{element('key', key)}{element('value', str(count))}</entry>"
            for key, count in value.items()
        )
    elif isinstance(value, Mapping):
        inside = "".join(_render(each, below) for each, below in value.items())
    else:
        inside = "".join(_render("member", each) for each in value)
    return f"<{name}>{inside}</{name}>"


def answer(service: str, action: str, result: Answer | None, request_id: str) -> S3Response:
    """200 with a result, or with none for an action that has nothing to tell."""
    told = "" if result is None else _render(f"{action}Result", result)
    root = f"{action}Response"
    body = (
        f'<{root} xmlns="{NAMESPACES[service]}">{told}<ResponseMetadata>'
        f"{element('RequestId', request_id)}</ResponseMetadata></{root}>\n"
    )
    return S3Response(200, list(_HEADERS), body.encode())


def refusal(service: str, code: str, status: int, message: str, request_id: str) -> S3Response:
    """An error document."""
    who = "Sender" if status < 500 else "Receiver"
    body = (
        f'<ErrorResponse xmlns="{NAMESPACES[service]}"><Error>{element("Type", who)}'
        f"{element('Code', code)}{element('Message', message)}</Error>"
        f"{element('RequestId', request_id)}</ErrorResponse>\n"
    )
    return S3Response(status, list(_HEADERS), body.encode())
