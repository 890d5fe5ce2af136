"""Wildcard patterns with policy variables: `*`, `?` and `${name}`, matched in linear time.

Source: IAM User Guide, "Policy elements: variables and tags" and "Wildcards".
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Lookup = Callable[[str], str | None]
"""The single value of a variable (its name in lower case), None when the request has none."""

_VARIABLE: Final = re.compile(r"\$\{([^{}]{1,256})\}")
_LITERALS: Final = frozenset({"*", "?", "$"})


class Glob:
    """One pattern without variables. Segments between stars are found from left to right, which
    never goes back: a pattern cannot be made to take long."""

    __slots__ = ("_first", "_last", "_middle", "_only")

    def __init__(self, tokens: tuple["Token", ...]) -> None:
        segments: list[list[Token]] = [[]]
        for token in tokens:
            if token is ANY:
                segments.append([])
            else:
                segments[-1].append(token)
        compiled = [_segment(each) for each in segments]
        self._only = compiled[0] if len(compiled) == 1 else None
        self._first, self._last = compiled[0], compiled[-1]
        self._middle = tuple(each for each in compiled[1:-1] if each[1])

    def matches(self, text: str) -> bool:
        """Whether the whole text fits."""
        if self._only is not None:
            return self._only[0].fullmatch(text) is not None
        start = self._first[0].match(text)
        if start is None:
            return False
        position = start.end()
        for pattern, _ in self._middle:
            found = pattern.search(text, position)
            if found is None:
                return False
            position = found.end()
        tail = len(text) - self._last[1]
        return tail >= position and self._last[0].match(text, tail) is not None


@dataclass(frozen=True, slots=True)
class Variable:
    """A `${name}`, with what stands for it when the request has no such value."""

    name: str
    default: str | None


class _Mark:
    """`*` or `?` of a pattern, told apart from the same characters as literals."""


ANY: Final = _Mark()
ONE: Final = _Mark()
Token = str | Variable | _Mark


def _segment(tokens: list[Token]) -> tuple[re.Pattern[str], int]:
    """A piece without stars as a pattern of fixed length."""
    text, length = "", 0
    for token in tokens:
        if isinstance(token, str):
            text += re.escape(token)
            length += len(token)
        else:
            text += "."
            length += 1
    return re.compile(text, re.DOTALL), length


class Pattern:
    """A pattern as written. `ignore_case` folds both sides."""

    __slots__ = ("_glob", "_ignore_case", "_tokens", "text")

    def __init__(
        self, text: str, *, variables: bool, wildcards: bool = True, ignore_case: bool = False
    ) -> None:
        self.text = text
        self._ignore_case = ignore_case
        self._tokens = _tokens(text, variables=variables, wildcards=wildcards, fold=ignore_case)
        fixed = not any(isinstance(token, Variable) for token in self._tokens)
        self._glob = Glob(self._tokens) if fixed else None

    def matches(self, text: str, lookup: Lookup) -> bool:
        """Whether the text fits; a variable without a value fits nothing."""
        if self._ignore_case:
            text = text.lower()
        if self._glob is not None:
            return self._glob.matches(text)
        tokens: list[Token] = []
        for token in self._tokens:
            if isinstance(token, Variable):
                value = lookup(token.name)
                if value is None:
                    value = token.default
                if value is None:
                    return False
                token = value.lower() if self._ignore_case else value
            tokens.append(token)
        return Glob(tuple(tokens)).matches(text)

    @property
    def is_fixed(self) -> bool:
        """Neither wildcards nor variables."""
        return all(isinstance(token, str) for token in self._tokens)


def _tokens(text: str, *, variables: bool, wildcards: bool, fold: bool) -> tuple[Token, ...]:
    tokens: list[Token] = []
    position = 0
    for found in _VARIABLE.finditer(text) if variables else ():
        _plain(text[position : found.start()], tokens, wildcards=wildcards, fold=fold)
        tokens.append(_variable(found[1]))
        position = found.end()
    _plain(text[position:], tokens, wildcards=wildcards, fold=fold)
    return tuple(tokens)


def _variable(inside: str) -> Token:
    if inside in _LITERALS:
        return inside
    name, comma, default = inside.partition(",")
    default = default.strip()
    if comma and len(default) >= 2 and default[0] == default[-1] == "'":
        return Variable(name.strip().lower(), default[1:-1])
    return Variable(name.strip().lower(), None)


def _plain(text: str, tokens: list[Token], *, wildcards: bool, fold: bool) -> None:
    if fold:
        text = text.lower()
    if not wildcards:
        if text:
            tokens.append(text)
        return
    for piece in re.split(r"([*?])", text):
        if piece == "*":
            tokens.append(ANY)
        elif piece == "?":
            tokens.append(ONE)
        elif piece:
            tokens.append(piece)
