"""Elements of XML request bodies, read strictly: bounded, without entities, each where it belongs.

What is off raises MalformedXML with a reason.
"""

from collections.abc import Collection
from typing import Final

from lxml import etree

from gateway.s3.errors import ErrorCode, S3Error

MAX_ELEMENTS: Final = 100_000


def malformed(reason: str) -> S3Error:
    """MalformedXML, with what is wrong for whoever looks at the answer."""
    return S3Error(ErrorCode.MALFORMED_XML, details={"Reason": reason})


def parse(text: bytes, root: str) -> "etree._Element":
    """The document's root element.

    AWS accepts its own namespace, another one, or none: compare names with `name_of`. Depth is
    bounded by libxml2 (256) and by the readers below, which refuse nested leaves.
    """
    if text.count(b"<") > 2 * MAX_ELEMENTS:
        raise malformed("the document holds too many elements")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )
    try:
        tree = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError, LookupError) as error:
        raise malformed(f"not well-formed: {error}") from error
    if tree.getroottree().docinfo.internalDTD is not None:
        raise malformed("document type declarations are not allowed")
    if name_of(tree) != root:
        raise malformed(f"the document is not a {root}")
    return tree


def name_of(node: "etree._Element") -> str:
    """An element's name without its namespace."""
    tag: object = node.tag
    if not isinstance(tag, str):  # lxml gives entities, comments and instructions a function
        raise malformed("only elements are allowed")
    return tag.rpartition("}")[2]


def text_of(leaf: "etree._Element") -> str:
    """The text of an element that holds nothing else."""
    if len(leaf):
        raise malformed(f"{name_of(leaf)} holds text")
    return leaf.text or ""


def boolean(text: str) -> bool:
    """`true` or `false`, in any case."""
    value = text.strip().lower()
    if value not in ("true", "false"):
        raise malformed("not a boolean")
    return value == "true"


def children_of(parent: "etree._Element", known: Collection[str]) -> dict[str, "etree._Element"]:
    """The children by name: each at most once, none but those known."""
    found: dict[str, etree._Element] = {}
    for child in parent:
        name = name_of(child)
        if name not in known or name in found:
            raise malformed(f"{name} is not expected here")
        found[name] = child
    return found


def texts_of(parent: "etree._Element", known: Collection[str]) -> dict[str, str]:
    """The children's texts by name: each at most once, none but those known, none nested."""
    return {name: text_of(child) for name, child in children_of(parent, known).items()}
