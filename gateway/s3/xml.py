"""Writing S3's XML: escaping and elements. Reading is in `documents`."""

import re
from collections.abc import Iterable
from typing import Final

DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"

# What XML 1.0 forbids (escaped as references all the same, which is what AWS sends and what SDKs
# expect), what it would normalise (carriage return), and the five markup characters.
_ESCAPED: Final = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "\ufffe": "&#xfffe;",
    "\uffff": "&#xffff;",
    **{chr(code): f"&#x{code:x};" for code in (*range(0x20), 0x7F) if code not in (0x09, 0x0A)},
}
_NEEDS_ESCAPE: Final = re.compile('[&<>"\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]')


def escape(text: str) -> str:
    """Text as element content. Control characters become character references, as AWS lists them
    when the client does not ask for `encoding-type=url`.
    """
    if _NEEDS_ESCAPE.search(text) is None:
        return text
    return _NEEDS_ESCAPE.sub(lambda match: _ESCAPED[match[0]], text)


def element(name: str, text: str) -> str:
    """`<name>text</name>` with the text escaped."""
    return f"<{name}>{escape(text)}</{name}>"


def optional_element(name: str, text: str | None) -> str:
    """`element`, or nothing at all when there is no text."""
    return "" if text is None else f"<{name}>{escape(text)}</{name}>"


def document(root: str, children: Iterable[str]) -> bytes:
    """A complete response document in S3's namespace; the children are already rendered."""
    body = "".join(children)
    return f'{DECLARATION}<{root} xmlns="{NAMESPACE}">{body}</{root}>'.encode()
