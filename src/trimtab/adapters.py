"""The user's functions, whatever their shape, to a `RewardFn`; and what the scoring loop may ask of a reward.

Three shapes are known: f(prompt, completion) -> float through `lift`, TRL's f(completions, **columns) -> list through
`Trl`, and f(groups) -> list[list[Reward]], which is a `RewardFn` already. No shape is guessed from a returned value.
What they return becomes numbers in returned.py. Each may be async.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

from trimtab.errors import InputError, TrimtabError
from trimtab.returned import NAN as NAN
from trimtab.returned import NO_REWARD, called, failed, one_each, settled, to_reward
from trimtab.types import AnyReward, Completion, Group, Prompt, Reward, RewardFn, describe

TRAINERS = ("trainer_state", "log_extra", "log_metric", "environments")
"""Keywords of TRL's that only a trainer can give: absent here, so that a function's own defaults hold."""
IDS = ("completion_ids", "completions_ids")  # TRL's documentation writes both
TRL_NAMES = {"prompts", "completions", *IDS}


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
        return f"Lifted({describe_any(self.f)})"


def lift(f: Callable[[Prompt, Completion], Any], limit_s: float | None = None) -> Lifted:
    """Turns f(prompt, completion) -> float (or bool, None, `Reward`) into a reward; see `Verifier.limit_s`."""
    return Lifted(f, limit_s)


@dataclass(frozen=True, repr=False)
class Trl:
    """TRL's reward convention, f(completions, **columns) -> list[float | None], as a `RewardFn`.

    Called once a group: `prompts`, `completions`, `completion_ids` (where every completion knows its tokens) and every
    column of the target are lists of N entries. As in TRL a chat prompt is a list of messages and its completion
    [{"role": "assistant", "content": text}]; raw prompts are text. A function without **kwargs gets the columns it
    names; what only a trainer knows (`trainer_state`, `log_metric`, ...) is left out. None is unscored.
    `whole_group=False` calls it once a completion: one that raises or hangs then costs itself alone, and the function
    must not compare completions.
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
        if not group.completions:
            return []
        arguments = self._arguments(group)
        try:
            return one_each(called(self.f, **arguments), len(group.completions))
        except TrimtabError:
            raise
        except NO_REWARD as e:
            return [failed(e)] * len(group.completions)

    def check(self, prompt: Prompt) -> None:
        """InputError when the function asks for a column that the prompt lacks. The function is not called."""
        self._arguments(Group(prompt, (Completion("", "", 0, 0, "stop", (0,), (0.0,)),)))

    def _arguments(self, group: Group) -> dict[str, Any]:
        n, messages = len(group.completions), group.prompt.messages
        raw = messages[0]["role"] == "text" if messages else False
        texts = [c.text for c in group.completions]
        given: dict[str, Any] = {k: [v] * n for k, v in group.prompt.columns.items() if k not in IDS}
        given["prompts"] = [messages[0]["content"] if raw else [dict(m) for m in messages]] * n
        given["completions"] = texts if raw else [[{"role": "assistant", "content": t}] for t in texts]
        if all(c.tokens is not None for c in group.completions):
            given["completion_ids"] = [list(c.tokens or ()) for c in group.completions]
        parameters = inspect.signature(self.f).parameters.values()
        if "completion_ids" in given and any(p.name == IDS[1] for p in parameters):
            given[IDS[1]] = given["completion_ids"]
        for p in parameters:
            if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in given:
                raise InputError(_lacking(describe_any(self.f), p.name, group.prompt))
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return given
        return {p.name: given[p.name] for p in parameters if p.name in given}

    def __repr__(self) -> str:
        return f"Trl({describe_any(self.f)}{'' if self.whole_group else ', whole_group=False'})"


def _lacking(reward: str, name: str, prompt: Prompt) -> str:
    if name in TRAINERS:
        return f"reward {reward} asks for {name!r}, which only a trainer can give; write {name}=None in its parameters"
    if name in IDS:
        return (
            f"reward {reward} asks for {name!r}, and completions of prompt {prompt.id!r} came without their tokens; "
            "sample with logprobs or by a local engine, or count something else"
        )
    columns = ", ".join(prompt.columns) or "(none)"
    return f"reward {reward} asks for column {name!r}, which prompt {prompt.id!r} lacks; it has: {columns}"


@dataclass(frozen=True, repr=False)
class Awaited:
    """async f(groups) -> list[list[Reward]] as a `RewardFn`."""

    f: Callable[[Sequence[Group]], Any]

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        return settled(self.f(groups))

    def __repr__(self) -> str:
        return f"Awaited({describe_any(self.f)})"


def adapt(f: Any, limit_s: float | None = None) -> Any:
    """A function of any of the three shapes, told by its parameters' names, as a reward; else InputError."""
    parameters = _parameters(f)
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if required == ["groups"]:
        return Awaited(f) if inspect.iscoroutinefunction(f) else f
    if TRL_NAMES & set(names) or (len(names) < len(parameters) and "completion" not in names):
        return Trl(f, limit_s)
    if len(required) == 2 and required != ["completion", "prompt"]:
        return Lifted(f, limit_s)
    raise InputError(
        f"reward {describe_any(f)} has parameters ({', '.join(names)}); write f(prompt, completion) -> float, "
        "f(completions, **columns) -> list[float | None] as for TRL, or f(groups) -> list[list[Reward]]"
    )


def as_reward(f: AnyReward) -> RewardFn:
    """`adapt` for a user's function given where a reward is taken; whatever takes groups is a reward already."""
    if not (inspect.isfunction(f) or inspect.ismethod(f)):
        return f
    names = [p.name for p in _parameters(f)]
    ready = names[:1] == ["groups"] or (len(names) == 1 and names[0] not in TRL_NAMES)
    return f if ready and not inspect.iscoroutinefunction(f) else adapt(f)


def score_answered(groups: Sequence[Group], reward: AnyReward) -> list[list[Reward]]:
    """What any `reward` gives, aligned with groups and completions; one that failed is not shown and is NaN."""
    reward = as_reward(reward)
    if not any(c.finish == "error" for g in groups for c in g.completions):
        return reward(groups)
    there = [Group(g.prompt, tuple(c for c in g.completions if not c.failed)) for g in groups]
    given = iter(reward([g for g in there if g.completions]))
    rows = [iter(next(given) if g.completions else ()) for g in there]
    return [
        [Reward(float("nan"), c.note) if c.failed else next(row) for c in g.completions]
        for g, row in zip(groups, rows, strict=True)
    ]


def _parameters(f: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError) as e:  # some functions written in C
        raise InputError(f"reward {f!r} does not tell its parameters; wrap it in f(prompt, completion)") from e


def describe_any(f: Any) -> str:
    """`describe`, also for a functools.partial and for an object that is called."""
    if isinstance(f, partial):
        return f"partial({describe_any(f.func)})"
    named = inspect.isroutine(f) or inspect.isclass(f) or is_dataclass(f)
    return describe(f if named else type(f))


def _guarded(one: Callable[[Prompt, Completion], Any], prompt: Prompt, completion: Completion) -> Reward:
    try:
        return to_reward(called(one, prompt, completion))
    except TrimtabError:
        raise  # the user must act: a missing column, a missing package
    except NO_REWARD as e:
        return failed(e)
