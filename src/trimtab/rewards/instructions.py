"""COMPLETIONS to the share of verifiable instructions that they follow: IFEval's checks (arXiv 2311.07911).

The checks are those of the package lm-eval, the maintained copy of the authors' code (`pip install lm-eval langdetect
immutabledict nltk`); nothing of them is repeated here. Two of them count by nltk's data `punkt_tab`, which is fetched
once by `python -m nltk.downloader punkt_tab`; without it those prompts are NaN with that note.

lm-eval draws at random what a prompt's settings leave open. Here such a prompt is NaN, and the note names the setting.
"""

import contextlib
import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trimtab.adapters import NAN, each
from trimtab.errors import InputError, unknown
from trimtab.returned import failed, no_reward
from trimtab.rewards.thoughts import UNFINISHED, Tags, answer_to
from trimtab.types import Completion, Group, Prompt, Reward

MODES = ("strict", "loose")
LANGUAGE = "language:response_language"


class _Undecided(Exception):
    """A check cannot say yes or no; the text is the reason."""


@dataclass(frozen=True)
class Instructions:
    """1 when the completion follows every instruction of its prompt, else 0; with `partial` the share it follows.

    The target has IFEval's columns `instruction_id_list` and `kwargs`, and `prompt`, the text that was given. "loose"
    forgives Markdown asterisks and a first or last line beside the answer, as the paper's loose accuracy does. Thoughts
    are not read. NaN with a note where a check cannot run or lacks a setting. The note of a lower reward names the
    instructions that were not followed.
    """

    mode: str = "strict"
    partial: bool = False
    tags: Tags = ()
    """Pairs of tags around thoughts beside the usual ones (rewards/thoughts.py)."""
    limit_s: ClassVar[float | None] = 20.0
    by_completion: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode of instructions", self.mode, MODES)

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        if not groups:  # a worker's chance to import, outside the limit
            _registry()
        return each(self.one, groups)

    def one(self, prompt: Prompt, completion: Completion) -> Reward:
        """One completion's reward."""
        columns, known = prompt.columns, _registry()
        ids, settings = columns.get("instruction_id_list"), columns.get("kwargs")
        if not isinstance(ids, list | tuple) or not isinstance(settings, list | tuple) or len(ids) != len(settings):
            return Reward(NAN, "the target needs 'instruction_id_list' and 'kwargs', two lists of one length")
        if not ids:
            return Reward(NAN, "the target's 'instruction_id_list' is empty: there is nothing to follow")
        if strange := [i for i in ids if i not in known]:
            return no_reward(str(unknown("instruction", str(strange[0]), known)))
        answer = answer_to(prompt, completion, self.tags)
        texts = [answer or ""] if self.mode == "strict" else loosened(answer or "")
        missed = []
        for name, given in zip(ids, settings, strict=True):
            try:
                check = _check(known[name], name, given, str(columns.get("prompt", "")))
                if not any(_follows(check, name, t) for t in texts):
                    missed.append(name)
            except _Undecided as e:
                return no_reward(f"{name} cannot be checked: {e}")
            except Exception as e:
                return no_reward(f"{name} cannot be checked: {failed(e).note}")
        if answer is None:
            return Reward(0.0, UNFINISHED)
        share = 1 - len(missed) / len(ids)
        return Reward(
            share if self.partial else float(not missed), f"not followed: {', '.join(missed)}" if missed else ""
        )


def loosened(text: str) -> list[str]:
    """The eight texts of which one must do in loose mode: with and without asterisks, first and last line."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(t.replace("*", "") for t in cut)]


def _check(make: Any, name: str, given: Any, prompt: str) -> Any:
    """lm-eval's check with its settings; _Undecided when it drew one of them itself."""
    if given is not None and not isinstance(given, Mapping):
        raise _Undecided(f"its settings are {type(given).__name__} {str(given)[:60]!r} where a table was expected")
    settings = {k: v for k, v in (given or {}).items() if not _is_null(v)}
    instruction = make(name)
    wanted = instruction.get_instruction_args_keys()
    if strange := sorted(set(settings) - set(wanted)):
        raise _Undecided(f"it has no setting {strange[0]!r}; it knows: {', '.join(wanted) or '(none)'}")
    if missing := [k for k in wanted if k not in settings and k != "prompt"]:
        raise _Undecided(f"its setting {missing[0]!r} is missing; lm-eval would draw one at random")
    if empty := [k for k, v in settings.items() if _is_empty(v)]:
        raise _Undecided(f"its setting {empty[0]!r} is empty")
    before = random.getstate()
    instruction.build_description(**settings)
    used = instruction.get_instruction_args() or {}
    if "prompt" in used:
        instruction.build_description(prompt=prompt)
    drawn = random.getstate() != before
    random.setstate(before)
    if replaced := [k for k, v in settings.items() if drawn or _plain(used.get(k)) != _plain(v)]:
        shown = ", ".join(f"{k!r}: {str(settings[k])[:60]!r}" for k in replaced)
        raise _Undecided(f"lm-eval does not take its settings {{{shown}}}; it would draw at random")
    return instruction


def _follows(instruction: Any, name: str, text: str) -> bool:
    if not text.strip():
        return False
    if name == LANGUAGE:  # lm-eval counts a text of no language, such as digits, as one in any language
        import langdetect  # pyright: ignore[reportMissingImports]

        try:
            langdetect.detect(text)
        except langdetect.LangDetectException as e:
            raise _Undecided(f"the language of the text cannot be told ({e})") from e
    return bool(instruction.check_following(text))


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))  # NaN: pandas' missing number


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, list | tuple) and not (value and all(isinstance(v, str) and v.strip() for v in value))


def _plain(value: Any) -> Any:
    """A setting without what lm-eval itself changes in it: case, space around, order and repetition."""
    if isinstance(value, list | tuple):
        return sorted({_plain(v) for v in value})
    return value.strip().lower() if isinstance(value, str) else value


def _registry() -> dict[str, Any]:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it says on stdout that it fetches data
            import langdetect  # pyright: ignore[reportMissingImports]
            from lm_eval.tasks.ifeval.instructions_registry import (  # pyright: ignore[reportMissingImports]
                INSTRUCTION_DICT,
            )
    except ImportError as e:
        raise InputError(
            f"IFEval's checks are not installed ({e}): pip install lm-eval langdetect immutabledict nltk"
        ) from e
    langdetect.DetectorFactory.seed = 0  # or it draws: the same text in two languages by turns
    return INSTRUCTION_DICT
