"""COMPLETIONS of reasoning-gym's tasks to rewards, by each task's own verifier (0 to 1, some with partial credit)."""

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from trimtab.adapters import NAN, column, each
from trimtab.errors import InputError, unknown
from trimtab.rewards.extract import answer_tag, boxed, extractor, last_number, number, whole
from trimtab.rewards.thoughts import UNFINISHED, Tags, answer_to
from trimtab.types import Completion, Group, Prompt, Reward

LIMIT_S = 10.0
_NUMBERS = ("chain_sum", "decimal_chain_sum", "products")  # they compare two decimals
_TUPLES = ("arc_agi", "rearc")  # their verifiers compare grids with tuples, which JSON turned into lists


@dataclass(frozen=True)
class ReasoningGym:
    """The verifier of a reasoning-gym task, e.g. ReasoningGym("chain_sum"); the prompt's target is the task's entry.

    `extract` names the extractor that finds the answer in the completion. "auto": <answer> tags or boxed; else the last
    number when the gold answer is a number, the whole text when it is not. A verifier that raises has refused the
    answer (0 with a note) if it accepts the gold one, and has failed (NaN with a note) if it does not.
    """

    task: str
    extract: str = "auto"
    binary: bool = False
    """True gives 0 where the verifier gives less than 1 (chain_sum's gives 0.5 to "13" when the answer is 3)."""
    tags: Tags = ()
    by_completion: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.extract != "auto":
            extractor(self.extract)

    @property
    def limit_s(self) -> float | None:
        """See `Verifier`: None for the tasks that compare text or numbers; others parse or even evaluate the answer."""
        verify = _verifier(self.task)
        from reasoning_gym.dataset import ProceduralDataset

        plain = getattr(verify, "__func__", None) is ProceduralDataset.score_answer
        return None if plain or self.task in _NUMBERS else LIMIT_S

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        _verifier(self.task)  # also for an empty batch, which is how a worker warms up
        return each(self.one, groups)

    def one(self, prompt: Prompt, completion: Completion) -> Reward:
        """One completion's reward."""
        entry = {k: column(prompt, k) for k in ("question", "answer", "metadata")}
        if self.task in _TUPLES:
            entry["metadata"] = entry["metadata"] | {"output": tuple(map(tuple, entry["metadata"]["output"]))}
        text = answer_to(prompt, completion, self.tags)
        if text is None:
            return Reward(0.0, UNFINISHED)
        answer = self._answer(text, str(entry["answer"]))
        if answer is None:
            return Reward(0.0, "no answer found")
        verify = _verifier(self.task)
        try:
            value = float(verify(answer, copy.deepcopy(entry)))
            return Reward(float(value >= 1) if self.binary else value)
        except Exception as e:
            note = f"{type(e).__name__}: {e}"
        try:
            verify(entry["answer"], entry)
        except Exception:
            return Reward(NAN, f"the verifier of {self.task} failed: {note}")
        return Reward(0.0, f"the verifier refused the answer: {note}")

    def _answer(self, text: str, gold: str) -> str | None:
        if self.extract != "auto":
            return extractor(self.extract)(text)
        marked = answer_tag(text) or boxed(text)
        if number(gold) is None:
            return marked or whole(text)
        found = last_number(marked or text)
        # written as the gold is ("007", "1,000"): reasoning-gym compares text
        return gold if found is not None and found == number(gold) else found


@lru_cache(maxsize=8)
def _verifier(task: str) -> Callable[[Any, dict[str, Any]], float]:
    try:
        from reasoning_gym.factory import DATASETS, get_score_answer_fn
    except ImportError as e:
        raise InputError("reasoning-gym is not installed: pip install 'trimtab[tasks]'") from e
    if task not in DATASETS:
        raise unknown("reasoning-gym task", task, DATASETS)
    return get_score_answer_fn(task)  # pyright: ignore[reportReturnType]


def task_name(spec: str) -> str | None:
    """The task in "reasoning_gym/chain_sum" or "reasoning-gym:chain_sum"; None when `spec` is no such name."""
    found = re.fullmatch(r"reasoning[-_]gym[/:](\w+)", spec)
    return found[1] if found else None
