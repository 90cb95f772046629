"""What a user's function returned, awaited or raised, to `Reward`s: the one place where foreign values become rewards.

A finite number of any library is its value. Everything else is NaN, and the note is one line of bounded length.
"""

import asyncio
import contextlib
import inspect
import math
import numbers
import re
import sys
import threading
from collections.abc import Callable, Mapping, Set
from decimal import Decimal
from typing import Any, SupportsFloat

import numpy as np

from trimtab.types import Reward

NAN = math.nan
NOTE = 300
"""Characters of a note."""
NO_REWARD = (Exception, SystemExit)
"""What a function may raise without ending the run: a call of sys.exit costs its own completion."""
UNORDERED = (str, bytes, bytearray, memoryview, Mapping, Set)


def one_line(text: str, limit: int = NOTE) -> str:
    """Text as one line for people: no banners, control characters or colours, its middle left out past `limit`.

    Of a traceback the last line stays, which names the error.
    """
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [" ".join(line.split()) for line in text.splitlines() if re.search(r"\w", line)]
    if len(lines) > 1 and any(line.startswith("Traceback (most recent call last)") for line in lines):
        lines = lines[-1:]
    line = " ".join(lines) if lines else text.strip()
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    half = (limit - 5) // 2
    return line if len(line) <= limit else f"{line[:half]} ... {line[-half:]}"


def no_reward(note: str) -> Reward:
    """NaN with a note of one bounded line."""
    return Reward(NAN, one_line(note))


def failed(error: BaseException) -> Reward:
    """NaN for what a function raised."""
    text = _text(error)
    return no_reward(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def called(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What `f` returns, awaited if it is async. What it prints goes to stderr, as stdout is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        return settled(f(*args, **kwargs))


def settled(value: Any) -> Any:
    """`value`, or what it gives when it is an awaitable, whether or not an event loop already runs in this thread."""
    if not inspect.isawaitable(value):
        return value

    async def outcome() -> Any:
        return await value

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(outcome())
    results: list[Any] = []  # a notebook or a server: its loop must not be entered twice

    def run() -> None:
        try:
            results.append((True, asyncio.run(outcome())))
        except BaseException as e:
            results.append((False, e))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    fine, result = results[0]
    if fine:
        return result
    raise result


def one_each(values: Any, n: int) -> list[Reward]:
    """A list, tuple, array, tensor or other ordered collection of `n` numbers as rewards; else NaN for all `n`."""
    if values is None or isinstance(values, UNORDERED):
        return [no_reward(f"the reward returned {_kind(values)} where a list was expected")] * n
    array = _array(values)
    if array is not None:
        values = array.reshape(-1).tolist() if array.ndim == 2 and array.shape[1] == 1 else array
        if array.ndim == 0:
            return [no_reward("the reward returned a single number where a list was expected")] * n
    elif isinstance(values, numbers.Number | Reward | Decimal):
        return [no_reward(f"the reward returned {_kind(values)} where a list was expected")] * n
    values = list(values)
    if len(values) != n:
        return [no_reward(f"the reward returned {len(values)} values for {n} completions")] * n
    return [to_reward(v) for v in values]


def to_reward(value: Any) -> Reward:
    """What a function returned for one completion, as a reward: a finite number is its value; None, NaN, infinity,
    text and everything else are NaN with a note."""
    if isinstance(value, Reward):
        inner = to_reward(value.value)
        return Reward(inner.value, one_line(value.note or inner.note) if value.note or inner.note else "")
    if value is None:
        return no_reward("the reward returned None")
    array = _array(value)
    if array is not None and array.size == 1:
        value = array.reshape(-1)[0]
    countable = isinstance(value, SupportsFloat) and not isinstance(value, UNORDERED)
    if not countable or (array is not None and array.size != 1):
        return no_reward(f"the reward returned {_kind(value)} {_shown(value)} where a number was expected")
    try:
        number = float(value)
    except Exception as e:  # 10 ** 400, a signalling NaN, pandas.NA
        return no_reward(f"the reward returned a number that no float can hold ({e})")
    return Reward(number) if math.isfinite(number) else no_reward(f"the reward returned {number}")


def _array(value: Any) -> np.ndarray | None:
    """A NumPy or torch value as an array on the CPU, whatever its dtype and device; None for others."""
    if isinstance(value, np.ndarray):
        return value
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return None
    dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
    return dense.cpu().resolve_conj().numpy() if dense.is_complex() else dense.cpu().double().numpy()


def _kind(value: Any) -> str:
    return type(value).__name__


def _shown(value: Any) -> str:
    try:
        return one_line(repr(value), 60)
    except Exception:
        return ""


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text cannot be shown)"
