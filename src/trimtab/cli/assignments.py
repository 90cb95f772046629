"""`name=value` flags to names and values: the one parser of --set, --price and --loss-set."""

import math
from collections.abc import Iterable

from trimtab.errors import InputError


def assignment(flag: str, text: str, write: str, *, last: bool = False) -> tuple[str, str]:
    """(name, value) of `text`, split at its first = or, for names that may hold one, its `last`. InputError says what
    to `write`."""
    name, equals, value = text.rpartition("=") if last else text.partition("=")
    if not equals:
        raise InputError(f"{flag} {text!r}: write {write}")
    return name.strip(), value


def numbers(
    flag: str, given: Iterable[str] | None, write: str, *, last: bool = False, least: float = -math.inf
) -> dict[str, float]:
    """Finite numbers by name, none below `least`."""
    out = {}
    for text in given or ():
        name, value = assignment(flag, text, write, last=last)
        try:
            out[name] = float(value)
        except ValueError:
            raise InputError(f"{flag} {text!r}: write {write}") from None
        if not (math.isfinite(out[name]) and out[name] >= least):
            bound = "" if least == -math.inf else f", {least:g} or more"
            raise InputError(f"{flag} {text!r}: {name} must be a finite number{bound}")
    return out
