"""The user's own sampler by "package.module:name": a function, an object, or a class to make one of.

It is checked at every call: exactly n completions a prompt, in the order of the prompts.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from trimtab.errors import InputError
from trimtab.named import load_named
from trimtab.types import Group, Prompt, Sampler, SamplingParams, StreamingSampler


@dataclass(frozen=True, repr=False)
class Own:
    """f(prompts, n, params) -> groups as a `Sampler`. `model` names it in the store."""

    f: Callable[[Sequence[Prompt], int, SamplingParams], list[Group]]
    model: str

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        """What the user's function gives. InputError when it is not exactly n completions for each prompt."""
        groups = list(self.f(prompts, n, params))
        if [g.prompt.id for g in groups] != [p.id for p in prompts]:
            raise InputError(f"engine {self.model!r} must give one group a prompt, in the order of the prompts")
        for g in groups:
            if len(g.completions) != n:
                raise InputError(
                    f"engine {self.model!r} gave {len(g.completions)} completions of prompt {g.prompt.id!r}, {n} were "
                    "asked for"
                )
        return groups

    def __repr__(self) -> str:
        return f"Own({self.model!r})"


def own_sampler(spec: str, name: str = "") -> Sampler:
    """The sampler that `spec` names; `name` (the model's) is given to a class or a function that makes samplers.

    A callable of (prompts, n, params) is a sampler. A class, or a function of at most one parameter, makes one.
    InputError when it cannot be imported or called so.
    """
    thing: Any = load_named(spec, "engine")
    if isinstance(thing, type) or (callable(thing) and _parameters(thing) < 2 and inspect.isroutine(thing)):
        try:
            thing = thing(name) if _parameters(thing) else thing()
        except TypeError as e:
            raise InputError(f"engine {spec!r} cannot be made with the model's name: {e}") from e
    if isinstance(thing, StreamingSampler):
        return thing
    if not callable(thing) or _parameters(thing) < 3:
        raise InputError(
            f"engine {spec!r} is no sampler: write f(prompts, n, params) -> list[Group], or a class with that __call__"
        )
    model = getattr(thing, "model", None)
    return Own(cast(Any, thing), model if isinstance(model, str) and model else f"{spec}{f' ({name})' if name else ''}")


def _parameters(thing: Any) -> int:
    try:
        return len([p for p in inspect.signature(thing).parameters.values() if p.kind is not p.VAR_KEYWORD])
    except (TypeError, ValueError):
        return 0
