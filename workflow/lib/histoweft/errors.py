"""Errors for people: where, what was found, what was expected, what to do; all faults at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """One thing wrong with what the user gave.

    Parameters
    ----------
    where
        File, line and column, or the option: ``config/samples.tsv, line 4, column platform``.
    found
        The value found, as the user wrote it.
    expected
        What would have been accepted.
    hint
        What to do about it.
    """

    where: str
    found: str
    expected: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: found {self.found}"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.hint:
            text += f". {self.hint}"
        return text


class HistoweftError(Exception):
    """An error whose message is meant for the user; scripts print it without a traceback."""


class NotComputed(HistoweftError):
    """The data of a sample (or study) cannot bear a step, which is nobody's fault: the step ends with empty results.

    Parameters
    ----------
    reason
        What was found, and what the step needs.
    option
        The option that asks for it, e.g. ``space.multiscale.neighbours``.
    """

    def __init__(self, reason: str, option: str = ""):
        self.reason, self.option = reason, option
        super().__init__(f"{reason.rstrip('.')}. Option: {option}." if option else reason)

    def __reduce__(self):
        return (type(self), (self.reason, self.option))


class InputError(HistoweftError):
    """The sheet, the config or an input file cannot be used; carries every fault found."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults = list(faults)
        n = len(self.faults)
        head = f"{n} fault{'s' if n != 1 else ''} in what this study was given:"
        super().__init__("\n".join([head, *(f"  {i}. {fault}" for i, fault in enumerate(self.faults, 1))]))

    @classmethod
    def one(cls, where: object, found: object, expected: str = "", hint: str = "") -> InputError:
        """Return an error of a single fault, for what stops a check at once."""
        return cls([Fault(str(where), str(found), expected, hint)])

    def __reduce__(self):
        return (type(self), (self.faults,))


@dataclass
class Faults:
    """Collects faults so that a user sees all of them in one go."""

    items: list[Fault] = field(default_factory=list)

    def add(self, where: str, found: object, expected: str = "", hint: str = "") -> None:
        """Note one fault; nothing is raised yet. The same fault is kept once."""
        self.extend([Fault(where, str(found), expected, hint)])

    def extend(self, other: Faults | Iterable[Fault]) -> None:
        """Take over the faults that another check collected, each once."""
        for fault in other.items if isinstance(other, Faults) else other:
            if fault not in self.items:
                self.items.append(fault)

    def __bool__(self) -> bool:
        return bool(self.items)

    def raise_if_any(self) -> None:
        """Raise `InputError` with every fault collected so far, if there is one."""
        if self.items:
            raise InputError(self.items)


def nearest(value: str, allowed: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` for the allowed word closest to `value`, or an empty string."""
    allowed = [str(word) for word in allowed]
    folded = {word.casefold(): word for word in allowed}
    match = difflib.get_close_matches(str(value).casefold(), list(folded), n=1, cutoff=0.6)
    return f"Did you mean {folded[match[0]]!r}?" if match else ""
