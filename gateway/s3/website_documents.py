"""The XML body of PutBucketWebsite, read and checked as AWS does, and its rendering."""

import re
from typing import Any, Final

from lxml import etree

from gateway.s3.elements import children_of, malformed, name_of, parse, texts_of
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.xml import element

WEBSITE_DOCUMENT_LIMIT_BYTES: Final = 128 * 1024
"""Source: S3 User Guide, "Configuring a webpage redirect": at most 128 KB, at most 50 rules."""
RULES_MAX: Final = 50
_TEXT_LENGTH_MAX: Final = 1024
_CODE: Final = re.compile(r"[0-9]{3}")
_CONTROLS: Final = re.compile(r"[\x00-\x20\x7f]")

Fields = dict[str, Any]
"""Arguments of a `gateway.domain.website.Website`, its rules and redirects as fields likewise."""


def parse_website(text: bytes) -> Fields:
    """Raises MalformedXML, InvalidArgument, InvalidRequest."""
    parts = children_of(
        parse(text, "WebsiteConfiguration"),
        {"RedirectAllRequestsTo", "IndexDocument", "ErrorDocument", "RoutingRules"},
    )
    if "RedirectAllRequestsTo" in parts:
        if len(parts) > 1:
            raise _argument("RedirectAllRequestsTo cannot be provided in conjunction with others.")
        said = _texts(parts["RedirectAllRequestsTo"], {"HostName", "Protocol"})
        if not said.get("HostName"):
            raise malformed("RedirectAllRequestsTo has a HostName")
        return {"redirect_all": _target(said)}
    if "IndexDocument" not in parts:
        raise _argument(
            "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty"
        )
    suffix = _texts(parts["IndexDocument"], {"Suffix"}).get("Suffix", "")
    if not suffix or "/" in suffix:
        raise _argument("The IndexDocument Suffix is not well formed")
    website: Fields = {"index_suffix": suffix}
    if "ErrorDocument" in parts:
        website["error_key"] = _texts(parts["ErrorDocument"], {"Key"}).get("Key", "")
        if not website["error_key"]:
            raise malformed("an ErrorDocument has a Key")
    if "RoutingRules" in parts:
        rules = list(parts["RoutingRules"])
        if any(name_of(rule) != "RoutingRule" for rule in rules):
            raise malformed("RoutingRules hold RoutingRule elements")
        if len(rules) > RULES_MAX:
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                f"The number of routing rules must not exceed {RULES_MAX}",
            )
        website["rules"] = [_rule(rule) for rule in rules]
    return website


def _rule(node: "etree._Element") -> Fields:
    parts = children_of(node, {"Condition", "Redirect"})
    if "Redirect" not in parts:
        raise malformed("a RoutingRule has a Redirect")
    rule: Fields = {}
    if "Condition" in parts:
        condition = _texts(parts["Condition"], {"KeyPrefixEquals", "HttpErrorCodeReturnedEquals"})
        if not condition:
            raise malformed("a Condition says something")
        rule["prefix"] = condition.get("KeyPrefixEquals")
        code = condition.get("HttpErrorCodeReturnedEquals")
        rule["status"] = None if code is None else _status(code, "HttpErrorCode", 400, 599)
    said = _texts(
        parts["Redirect"],
        {"HostName", "Protocol", "HttpRedirectCode", "ReplaceKeyPrefixWith", "ReplaceKeyWith"},
    )
    if not said:
        raise malformed("a Redirect says something")
    if "ReplaceKeyPrefixWith" in said and "ReplaceKeyWith" in said:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "You can only define ReplaceKeyPrefix or ReplaceKey but not both.",
        )
    redirect = _target(said)
    if "HttpRedirectCode" in said:
        redirect["code"] = _status(said["HttpRedirectCode"], "HTTP redirect code", 301, 399)
    redirect["prefix"] = said.get("ReplaceKeyPrefixWith")
    redirect["key"] = said.get("ReplaceKeyWith")
    rule["redirect"] = redirect
    return rule


def _target(said: dict[str, str]) -> Fields:
    protocol, host = said.get("Protocol", ""), said.get("HostName", "")
    if protocol not in ("", "http", "https"):
        raise S3Error(ErrorCode.INVALID_REQUEST, "Invalid protocol, protocol can be http or https.")
    if _CONTROLS.search(host) or not host.isascii():
        raise malformed("HostName is a host's name")
    return {"host": host, "protocol": protocol}


def _status(text: str, what: str, least: int, most: int) -> int:
    if _CODE.fullmatch(text) is None or not least <= int(text) <= most:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            f"The provided {what} ({text}) is not valid. Valid codes are {least} to {most}.",
        )
    return int(text)


def _argument(message: str) -> S3Error:
    return S3Error(ErrorCode.INVALID_ARGUMENT, message)


def _texts(node: "etree._Element", known: set[str]) -> dict[str, str]:
    found = texts_of(node, known)
    for name, text in found.items():
        if len(text) > _TEXT_LENGTH_MAX:
            raise malformed(f"{name} holds a short text")
    return found


def website_elements(website: Fields) -> list[str]:
    """The children of WebsiteConfiguration, from all fields of a website."""
    if website["redirect_all"] is not None:
        return [
            f"<RedirectAllRequestsTo>{_target_text(website['redirect_all'])}"
            "</RedirectAllRequestsTo>"
        ]
    parts = [f"<IndexDocument>{element('Suffix', website['index_suffix'])}</IndexDocument>"]
    if website["error_key"]:
        parts.append(f"<ErrorDocument>{element('Key', website['error_key'])}</ErrorDocument>")
    if website["rules"]:
        rules = "".join(map(_rule_text, website["rules"]))
        parts.append(f"<RoutingRules>{rules}</RoutingRules>")
    return parts


def _rule_text(rule: Fields) -> str:
    status = None if rule["status"] is None else str(rule["status"])
    condition = _optional("HttpErrorCodeReturnedEquals", status)
    condition += _optional("KeyPrefixEquals", rule["prefix"])
    redirect = rule["redirect"]
    said = _target_text(redirect)
    said += element("HttpRedirectCode", str(redirect["code"]))
    said += _optional("ReplaceKeyPrefixWith", redirect["prefix"])
    said += _optional("ReplaceKeyWith", redirect["key"])
    text = f"<Condition>{condition}</Condition>" if condition else ""
    return f"<RoutingRule>{text}<Redirect>{said}</Redirect></RoutingRule>"


def _target_text(redirect: Fields) -> str:
    host = _optional("HostName", redirect["host"] or None)
    return host + _optional("Protocol", redirect["protocol"] or None)


def _optional(name: str, text: str | None) -> str:
    return "" if text is None else element(name, text)
