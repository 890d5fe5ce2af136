"""What S3 promises, per key: a register that is written, read and ended; and the history of calls.

A value is named by its ETag. Every body is written once only, so a name says which write was seen.
"""

from dataclasses import dataclass, field

FOREVER = float("inf")


class Wrong(AssertionError):
    """The store broke a promise."""


@dataclass(eq=False, slots=True)
class Act:
    """One call as one key saw it.

    `kind` is write, read or end. `value` is the ETag written or seen (None: nothing there). An act
    that is `unsure` may have happened at any time after its call, or not at all; if it is unsure
    what it wrote, `choices` has what it may have been. `needs` is a write's condition: "*" nothing
    there, else that ETag; `refused` says that the condition was found broken.
    """

    key: str
    kind: str
    called: float
    value: str | None = None
    returned: float = FOREVER
    unsure: bool = False
    needs: str = ""
    refused: bool = False
    choices: tuple[str, ...] = ()
    said: str = ""

    def after(self, state: str | None) -> list[str | None]:
        """States that may follow; empty when the act cannot have happened in this one."""
        if self.kind == "read":
            return [state] if state == self.value else []
        holds = not self.needs or (state is None if self.needs == "*" else state == self.needs)
        if self.refused:
            return [] if holds else [state]
        if not holds:
            return []
        if self.kind == "end":
            return [None]
        return list(self.choices) if self.choices else [self.value]

    def __str__(self) -> str:
        end = "…" if self.returned == FOREVER else f"{self.returned:.4f}"
        word = f"{self.kind} {self.value or '-'}"
        if self.needs:
            word += f" if {self.needs}" + (" REFUSED" if self.refused else "")
        return f"{self.called:.4f}–{end} {self.key} {word}{' (unsure)' if self.unsure else ''} {self.said}"


@dataclass
class History:
    """All acts, in the order of their calls."""

    acts: list[Act] = field(default_factory=list)

    def of_key(self, key: str) -> list[Act]:
        return [act for act in self.acts if act.key == key]

    @property
    def keys(self) -> list[str]:
        return sorted({act.key for act in self.acts})


class TooHard(Exception):
    """The search was given up."""


def linearize(acts: list[Act], *, steps_max: int = 400_000) -> list[Act] | None:
    """An order of the acts that a register allows and that keeps to their times, or None.

    Depth first over sets of acts already placed (Wing and Gong), remembering what led nowhere.
    """
    acts = sorted(acts, key=lambda act: act.called)
    everything = 0
    for number, act in enumerate(acts):
        if not act.unsure:
            everything |= 1 << number
    seen: set[tuple[int, str | None]] = set()
    order: list[int] = []
    stack: list[tuple[int, str | None, list[tuple[int, str | None]]]] = []

    def candidates(placed: int, state: str | None) -> list[tuple[int, str | None]]:
        """Acts that may come next, sure ones first: those called before any unplaced returned. Of
        unsure ones that would do the same the first stands for all: it may be placed whenever
        another of them may."""
        bound = FOREVER
        alike: set[tuple[str, str | None, str, tuple[str, ...]]] = set()
        sure: list[tuple[int, str | None]] = []
        unsure: list[tuple[int, str | None]] = []
        for number, act in enumerate(acts):
            if act.called > bound:
                break
            if placed >> number & 1:
                continue
            bound = min(bound, act.returned)
            if act.unsure:
                signature = (act.kind, act.value, act.needs, act.choices)
                if signature in alike:
                    continue
                alike.add(signature)
            states = act.after(state)
            looks = act.kind == "read" or act.refused
            if looks and states and not act.unsure and act.called <= bound:
                return [(number, state)]  # what only looks may always come first
            into = unsure if act.unsure else sure
            into += [(number, state_after) for state_after in states]
        return [c for c in sure + unsure if acts[c[0]].called <= bound]

    placed, state = 0, None
    stack.append((placed, state, candidates(placed, state)))
    steps = 0
    while stack:
        placed, state, left = stack[-1]
        if placed & everything == everything:
            return [acts[number] for number in order]
        if not left:
            stack.pop()
            if order:
                order.pop()
            continue
        number, state_after = left.pop(0)
        then = placed | 1 << number
        if (then, state_after) in seen:
            continue
        seen.add((then, state_after))
        steps += 1
        if steps > steps_max:
            raise TooHard(f"{len(acts)} acts")
        order.append(number)
        stack.append((then, state_after, candidates(then, state_after)))
    return None
