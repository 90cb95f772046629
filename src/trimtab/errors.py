"""What can go wrong, in words that say what to do. Imports nothing of ours."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class TrimtabError(Exception):
    """Base of every error this package raises on purpose; its message says what to do next."""


class InputError(TrimtabError):
    """The user's file, line, field, flag or argument is wrong; the message names it."""


class StoreError(TrimtabError):
    """A run directory cannot be read or written (disk full, another writer, a file that is not ours)."""


class SettingsChanged(StoreError):
    """A stage already holds rows made with other settings; the message shows the difference."""


class ModelError(TrimtabError):
    """A model cannot be had, is broken, or does not match the card of a learned object."""


class EngineError(TrimtabError):
    """An engine or server failed after the bounded retries."""


class CapReached(TrimtabError):
    """A cap on calls, tokens or dollars leaves no room for what a lever asks next."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Error for a `name` outside `known`, with the nearest known name and the list."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known) or '(none)'}")


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], form: str = "{key}: {old} then, {new} now"
) -> list[str]:
    """What differs between two settings, a text a key; a key that one lacks is (absent) there."""
    return [
        form.format(key=k, **{side: repr(s[k]) if k in s else "(absent)" for side, s in (("old", old), ("new", new))})
        for k in {**old, **new}
        if k not in old or k not in new or old[k] != new[k]
    ]


def refuse_changed(
    what: str, old: Mapping[str, Any], new: Mapping[str, Any], do: str = "Use another directory, or delete it."
) -> None:
    """SettingsChanged that shows the difference, unless `what` was made with these very settings."""
    if found := differences(old, new):
        raise SettingsChanged("\n".join([f"{what} with other settings:", *(f"  {line}" for line in found), do]))
