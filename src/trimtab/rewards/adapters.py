"""The user's functions, whatever their shape, to a `RewardFn`; and what the scoring loop may ask of a reward.

Three shapes are known: f(prompt, completion) -> float through `lift`, TRL's f(completions, **columns) -> list through
`Trl`, and f(groups) -> list[list[Reward]], which is a `RewardFn` already. No shape is guessed from a returned value.
"""

import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from trimtab.errors import InputError, TrimtabError
from trimtab.types import Completion, Group, Prompt, Reward, describe

NAN = math.nan


@runtime_checkable
class Verifier(Protocol):
    """A reward that says how it wants to run. One without these two is called in this process, groups at a time."""

    @property
    def by_completion(self) -> bool:
        """True when a reward depends on the prompt and that completion alone, so that it may be scored by itself."""
        ...

    @property
    def limit_s(self) -> float | None:
        """None: cheap and safe, runs in this process. A number: in worker processes, at most so many seconds each."""
        ...

    def __call__(self, groups: Sequence[Group], /) -> list[list[Reward]]:
        """A `RewardFn`. Called without groups once in each worker, outside the limit: time to import what it needs."""
        ...


def each(one: Callable[[Prompt, Completion], Any], groups: Sequence[Group]) -> list[list[Reward]]:
    """`one(prompt, completion)` for every completion; what it raises becomes NaN and a note, except our own errors."""
    return [[_guarded(one, g.prompt, c) for c in g.completions] for g in groups]


def to_reward(value: Any) -> Reward:
    """What a function returned for one completion, as a reward: a finite number is its value; None, NaN, infinity,
    text and everything else are NaN with a note."""
    if isinstance(value, Reward):
        if math.isfinite(value.value) or value.note:
            return value
        value = value.value
    if value is None:
        return Reward(NAN, "the reward returned None")
    if isinstance(value, bool | numbers.Real) or type(value).__name__ == "bool":  # numpy's bool is no Real
        number = float(value)
        return Reward(number) if math.isfinite(number) else Reward(NAN, f"the reward returned {number}")
    text = repr(value)
    return Reward(NAN, f"the reward returned {type(value).__name__} {text[:60]} where a number was expected")


def column(prompt: Prompt, name: str) -> Any:
    """The column `name` of the prompt's target. InputError names the prompt and the columns it has."""
    columns = prompt.columns
    if name not in columns:
        raise InputError(
            f"prompt {prompt.id!r} has no column {name!r} for the reward; it has: {', '.join(columns) or '(none)'}"
        )
    return columns[name]


@dataclass(frozen=True, repr=False)
class Lifted:
    """f(prompt, completion) -> float as a `RewardFn`; made by `lift`."""

    f: Callable[[Prompt, Completion], Any]
    limit_s: float | None = None
    by_completion: ClassVar[bool] = True

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        return each(self.f, groups)

    def __repr__(self) -> str:  # a function's own repr holds an address, which would change the manifest every run
        return f"Lifted({describe(self.f)})"


def lift(f: Callable[[Prompt, Completion], Any], limit_s: float | None = None) -> Lifted:
    """Turns f(prompt, completion) -> float (or bool, None, `Reward`) into a reward; see `Verifier.limit_s`."""
    return Lifted(f, limit_s)


@dataclass(frozen=True, repr=False)
class Trl:
    """TRL's reward convention, f(completions, **columns) -> list[float | None], as a `RewardFn`.

    Called once a group: `prompts`, `completions` and every column of the target are lists of N entries. As in TRL a
    chat prompt is a list of messages and its completion [{"role": "assistant", "content": text}]; raw prompts are text.
    A function without **kwargs gets the columns it names. None is unscored. `whole_group=False` calls it once a
    completion: one that raises or hangs then costs itself alone, and the function must not compare completions.
    """

    f: Callable[..., Any]
    limit_s: float | None = None
    whole_group: bool = True

    @property
    def by_completion(self) -> bool:
        """See `Verifier`."""
        return not self.whole_group

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        if self.whole_group:
            return [self._group(g) for g in groups]
        return [[r for c in g.completions for r in self._group(Group(g.prompt, (c,)))] for g in groups]

    def _group(self, group: Group) -> list[Reward]:
        n = len(group.completions)
        if n == 0:
            return []
        try:
            values = self.f(**self._arguments(group))
            values = values if isinstance(values, str | bytes) else list(values)
        except TrimtabError:
            raise
        except Exception as e:
            return [Reward(NAN, f"{type(e).__name__}: {e}")] * n
        if isinstance(values, str | bytes):
            return [Reward(NAN, f"the reward returned {type(values).__name__} where a list was expected")] * n
        if len(values) != n:
            return [Reward(NAN, f"the reward returned {len(values)} values for {n} completions")] * n
        return [to_reward(v) for v in values]

    def _arguments(self, group: Group) -> dict[str, Any]:
        n, messages = len(group.completions), group.prompt.messages
        raw = messages[0]["role"] == "text"
        texts = [c.text for c in group.completions]
        given: dict[str, Any] = {k: [v] * n for k, v in group.prompt.columns.items()}
        given["prompts"] = [messages[0]["content"] if raw else [dict(m) for m in messages]] * n
        given["completions"] = texts if raw else [[{"role": "assistant", "content": t}] for t in texts]
        parameters = inspect.signature(self.f).parameters.values()
        for p in parameters:
            if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in given:
                raise InputError(
                    f"reward {describe(self.f)} asks for column {p.name!r}, which prompt {group.prompt.id!r} lacks; "
                    f"it has: {', '.join(group.prompt.columns) or '(none)'}"
                )
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return given
        return {p.name: given[p.name] for p in parameters if p.name in given}

    def __repr__(self) -> str:
        return f"Trl({describe(self.f)}{'' if self.whole_group else ', whole_group=False'})"


def adapt(f: Any, limit_s: float | None = None) -> Any:
    """A function of any of the three shapes, told by its parameters' names, as a reward; else InputError."""
    if inspect.iscoroutinefunction(f):
        raise InputError(f"reward {describe(f)} is async; wrap it in a plain function")
    names = [p.name for p in inspect.signature(f).parameters.values() if p.kind is not p.VAR_KEYWORD]
    if "completions" in names:
        return Trl(f, limit_s)
    if names == ["groups"]:
        return f
    if len(names) == 2:
        return Lifted(f, limit_s)
    raise InputError(
        f"reward {describe(f)} has parameters ({', '.join(names)}); write f(prompt, completion) -> float, "
        "f(completions, **columns) -> list[float | None] as for TRL, or f(groups) -> list[list[Reward]]"
    )


def _guarded(one: Callable[[Prompt, Completion], Any], prompt: Prompt, completion: Completion) -> Reward:
    try:
        return to_reward(one(prompt, completion))
    except TrimtabError:
        raise  # the user must act: a missing column, a missing package
    except Exception as e:
        return Reward(NAN, f"{type(e).__name__}: {e}")
