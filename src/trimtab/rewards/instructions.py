"""COMPLETIONS to the share of verifiable instructions that they follow: IFEval's checks (arXiv 2311.07911).

The checks are those of the package lm-eval, the maintained copy of the authors' code (`pip install lm-eval langdetect
immutabledict nltk`); nothing of them is repeated here. One of them counts sentences by nltk's data `punkt_tab`, which
is fetched once by `python -m nltk.downloader punkt_tab`; without it those prompts are NaN with that note.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trimtab.errors import InputError, unknown
from trimtab.rewards.adapters import NAN, each
from trimtab.types import Completion, Group, Prompt, Reward

MODES = ("strict", "loose")


@dataclass(frozen=True)
class Instructions:
    """1 when the completion follows every instruction of its prompt, else 0; with `partial` the share it follows.

    The target has IFEval's columns `instruction_id_list` and `kwargs`, and `prompt`, the text that was given. "loose"
    forgives Markdown asterisks and a first or last line beside the answer, as the paper's loose accuracy does. NaN with
    a note where a check cannot run. The note of a lower reward names the instructions that were not followed.
    """

    mode: str = "strict"
    partial: bool = False
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
        if strange := [i for i in ids if i not in known]:
            return Reward(NAN, str(unknown("instruction", strange[0], known)))
        texts = [completion.text] if self.mode == "strict" else loosened(completion.text)
        missed = []
        for name, kwargs in zip(ids, settings, strict=True):
            try:
                if not any(_follows(known[name], name, kwargs, str(columns.get("prompt", "")), t) for t in texts):
                    missed.append(name)
            except LookupError as e:  # nltk's way to say that its data is not there
                return Reward(
                    NAN, f"{name} cannot be checked: {str(e).strip().splitlines()[0]}; see rewards.instructions"
                )
            except Exception as e:
                return Reward(NAN, f"{name} cannot be checked: {type(e).__name__}: {e}")
        share = 1 - len(missed) / max(len(ids), 1)
        return Reward(
            share if self.partial else float(not missed), f"not followed: {', '.join(missed)}" if missed else ""
        )


def loosened(text: str) -> list[str]:
    """The eight texts of which one must do in loose mode: with and without asterisks, first and last line."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(t.replace("*", "") for t in cut)]


def _follows(check: Any, name: str, kwargs: dict[str, Any], prompt: str, text: str) -> bool:
    if not text.strip():
        return False
    instruction = check(name)
    instruction.build_description(**{k: v for k, v in kwargs.items() if v})
    wanted = instruction.get_instruction_args()
    if wanted and "prompt" in wanted:
        instruction.build_description(prompt=prompt)
    return bool(instruction.check_following(text))


def _registry() -> dict[str, Any]:
    try:
        from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise InputError(
            f"IFEval's checks are not installed ({e}): pip install lm-eval langdetect immutabledict nltk"
        ) from e
    return INSTRUCTION_DICT
