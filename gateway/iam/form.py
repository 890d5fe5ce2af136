"""The parameters of a query request: read from the form, checked as IAM's model demands."""

import binascii
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

from gateway.domain import iam
from gateway.domain.iam import IamRefused, Kind, Refusal
from gateway.domain.iam_tags import (
    TAG_KEY_LENGTH_MAX,
    TAG_PATTERN,
    TAG_VALUE_LENGTH_MAX,
    TAGS_MAX,
    Tags,
    checked,
)

FIELDS_MAX: Final = 400
ITEMS_MAX: Final = 1000
ITEMS_DEFAULT: Final = 100
DOCUMENT_LENGTH_MAX: Final = 131_072
"""Of a policy as it is sent; what counts is its size without blanks."""
_MARKER_LENGTH_MAX: Final = 1024
_TAG: Final = "Tags.member."
_DOCUMENT: Final = re.compile(r"[\t\n\r\x20-\xff]+")


class Form:
    """The decoded fields; of a name given twice the first counts. Its methods raise IamRefused
    (ValidationError)."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    def get(self, name: str) -> str | None:
        """A parameter as it came; None when it is not there."""
        return self._fields.get(name)

    def text(
        self,
        name: str,
        *,
        length_max: int,
        length_min: int = 1,
        pattern: re.Pattern[str] | None = None,
    ) -> str | None:
        """An optional parameter."""
        value = self._fields.get(name)
        if value is None:
            return None
        if len(value) > length_max:
            raise violated(name, value, f"have length less than or equal to {length_max}")
        if len(value) < length_min:
            raise violated(name, value, f"have length greater than or equal to {length_min}")
        if pattern is not None and pattern.fullmatch(value) is None:
            raise violated(name, value, f"satisfy regular expression pattern: {pattern.pattern}")
        return value

    def required(
        self,
        name: str,
        *,
        length_max: int,
        length_min: int = 1,
        pattern: re.Pattern[str] | None = None,
    ) -> str:
        """A parameter that must be there."""
        value = self.text(name, length_max=length_max, length_min=length_min, pattern=pattern)
        if value is None:
            raise absent(name)
        return value

    def name(self, kind: Kind, argument: str = "") -> str:
        """The name of a user, group, role or policy: the parameter UserName and so on."""
        return self.required(
            argument or f"{kind.title}Name",
            length_max=128 if not argument.startswith("New") else kind.name_length_max,
            pattern=iam.NAME,
        )

    def new_name(self, kind: Kind, argument: str = "") -> str:
        """The name of one that is made."""
        return self.required(
            argument or f"{kind.title}Name", length_max=kind.name_length_max, pattern=iam.NAME
        )

    def optional_name(self, kind: Kind) -> str | None:
        """The same where it may be left out."""
        argument = f"{kind.title}Name"
        return self.name(kind) if argument in self._fields else None

    def policy_name(self) -> str:
        """The name of an inline policy."""
        return self.required("PolicyName", length_max=iam.POLICY_NAME_LENGTH_MAX, pattern=iam.NAME)

    def path(self, argument: str = "Path") -> str | None:
        """A path; None when it is not given."""
        return self.text(argument, length_max=iam.PATH_LENGTH_MAX, pattern=iam.PATH)

    def path_prefix(self) -> str:
        """What paths must begin with."""
        found = self.text("PathPrefix", length_max=iam.PATH_LENGTH_MAX, pattern=iam.PATH_PREFIX)
        return found or "/"

    def document(self, name: str) -> str:
        """A policy."""
        return self.required(name, length_max=DOCUMENT_LENGTH_MAX, pattern=_DOCUMENT)

    def choice(self, name: str, known: Sequence[str]) -> str | None:
        """One of a few words."""
        value = self._fields.get(name)
        if value is not None and value not in known:
            raise violated(name, value, f"satisfy enum value set: [{', '.join(known)}]")
        return value

    def flag(self, name: str) -> bool:
        """A boolean; false when it is not given."""
        return self.choice(name, ("true", "false")) == "true"

    def number(self, name: str, lowest: int, highest: int) -> int | None:
        """An integer within bounds."""
        value = self._fields.get(name)
        if value is None:
            return None
        if re.fullmatch(r"[0-9]{1,9}", value) is None:
            raise IamRefused(Refusal.VALIDATION, f"{name} must be an integer.")
        number = int(value)
        if number < lowest:
            raise violated(name, value, f"have value greater than or equal to {lowest}")
        if number > highest:
            raise violated(name, value, f"have value less than or equal to {highest}")
        return number

    def members(self, name: str, *, count_max: int, length_max: int) -> tuple[str, ...]:
        """`name`.member.N, in order, without repetition."""
        found: list[str] = []
        for number in range(1, count_max + 2):
            value = self.text(f"{name}.member.{number}", length_max=length_max)
            if value is None:
                break
            if number > count_max:
                raise iam.over_quota(name, count_max)
            found.append(value)
        return tuple(dict.fromkeys(found))

    def tags(self, kind: Kind) -> Tags:
        """Tags.member.N.Key and .Value, as tags for one of that kind."""
        found: list[tuple[str, str]] = []
        for number in range(1, TAGS_MAX + 2):
            key = self.text(
                f"{_TAG}{number}.Key", length_max=TAG_KEY_LENGTH_MAX, pattern=TAG_PATTERN
            )
            if key is None:
                break
            if number > TAGS_MAX:
                raise iam.over_quota(f"TagsPer{kind.title}", TAGS_MAX)
            value = self.text(
                f"{_TAG}{number}.Value",
                length_max=TAG_VALUE_LENGTH_MAX,
                length_min=0,
                pattern=TAG_PATTERN,
            )
            found.append((key, value or ""))
        return checked(kind, found)

    def told_tags(self) -> Tags:
        """The same as they were sent, whether they can be taken or not."""
        keys = self._told(_TAG + "{}.Key")
        return tuple(
            (key, self._fields.get(f"{_TAG}{number}.Value", ""))
            for number, key in enumerate(keys, 1)
        )

    def told_tag_keys(self) -> tuple[str, ...]:
        """Keys of tags that are set or taken away, as they were sent."""
        return (*self._told(_TAG + "{}.Key"), *self._told("TagKeys.member.{}"))

    def _told(self, name: str) -> list[str]:
        found: list[str] = []
        while (value := self._fields.get(name.format(len(found) + 1))) is not None:
            found.append(value)
        return found

    @property
    def has_tags(self) -> bool:
        """Whether there is a tag at all."""
        return f"{_TAG}1.Key" in self._fields

    def limit(self) -> int:
        """How many items a page has."""
        return self.number("MaxItems", 1, ITEMS_MAX) or ITEMS_DEFAULT

    def marker(self) -> str:
        """Where the page begins: after this name. Empty: at the start."""
        value = self.text("Marker", length_max=_MARKER_LENGTH_MAX)
        if value is None:
            return ""
        try:
            return b64decode(value.encode("ascii"), b"-_", validate=True).decode()
        except (ValueError, binascii.Error):
            raise IamRefused(Refusal.VALIDATION, "Invalid Marker.") from None


def write_marker(name: str) -> str:
    """How a client is told the name after which it is to continue."""
    return urlsafe_b64encode(name.encode()).decode()


def read_form(body: bytes) -> Form:
    """The form of a request's body. Raises IamRefused (ValidationError)."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise IamRefused(Refusal.VALIDATION, "The request's form does not parse.") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return Form(fields)


def absent(name: str) -> IamRefused:
    """ValidationError for a parameter that must be there."""
    return IamRefused(
        Refusal.VALIDATION,
        f"1 validation error detected: Value null at '{_lower(name)}' failed to satisfy "
        "constraint: Member must not be null",
    )


def violated(name: str, value: str, constraint: str) -> IamRefused:
    """ValidationError in AWS's words; long values are cut."""
    shown = value if len(value) <= 256 else value[:256] + "..."
    return IamRefused(
        Refusal.VALIDATION,
        f"1 validation error detected: Value '{shown}' at '{_lower(name)}' failed to satisfy "
        f"constraint: Member must {constraint}",
    )


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]
