r"""TRL's preference, unpaired and prompt-completion data sets to PAIRS and GROUPS, standard or conversational.

    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}                                  preference
    {"prompt": [{"role": "user", "content": "2 + 3?"}], "chosen": [{"role": "assistant", "content": "5"}],
     "rejected": [{"role": "assistant", "content": "6"}], "chosen_score": 1.0, "rejected_score": 0.0}    conversational
    {"prompt": "2 + 3?", "chosen": [user, {"role": "assistant", ...}], "rejected": [...]}       prompt and dialogues
    {"chosen": [..., {"role": "assistant", ...}], "rejected": [...]}                                     implicit prompt
    {"prompt": "The sky is", "completion": " blue.", "label": true}                                      unpaired
    {"prompt": "The sky is", "completion": " blue."}                                              prompt-completion

From any file of rows (`data.rows`) or a hub data set. Columns that are not named here go to the
prompt's target; `system` and `tools` to its messages (`data.messages`). It does not judge the pairs (`data.lint` does).
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.data.answers import margin_of, read_row
from trimtab.data.messages import SYSTEM
from trimtab.data.rows import check_depth, numbered, read_rows, short
from trimtab.errors import InputError
from trimtab.types import Completion, Group, Pair, Prompt, Reward, fingerprint

READ = frozenset({"prompt", "chosen", "rejected", "completion", "label", "margin", "prompt_id", "tools", *SYSTEM})
"""Columns that become a part of the pair or its prompt; the others are its target."""


def load_pairs(spec: str | Path, *, chat: bool = False) -> list[Pair]:
    """Preference pairs from a file or a hub data set.

    The margin is the column `margin`, or the difference of two scores (`chosen_score` and `rejected_score`, or by
    another of `answers.SCORES`), else 0 (unknown). Text prompts are raw text; with `chat`, or where the answers are
    messages, a user's turn.
    """
    return [_pair(where, row, chat, str(spec)) for where, row in read_rows(spec)]


def pairs_from_rows(rows: Iterable[Mapping[str, Any]], *, chat: bool = False, source: str = "rows") -> list[Pair]:
    """The rules of `load_pairs` on mappings, such as a `datasets.Dataset` yields."""
    return [_pair(where, row, chat, source) for where, row in numbered(rows, source)]


def load_labelled(spec: str | Path, *, chat: bool = False) -> list[Group]:
    """Unpaired preferences: the completions of one prompt as one group, reward 1 where `label` is true, else 0."""
    singles = []
    for where, row in read_rows(spec):
        label = row.get("label")
        if isinstance(label, str) and label.lower() in ("true", "false"):  # a CSV has no other way to say it
            label = label.lower() == "true"
        if not isinstance(label, bool):
            raise InputError(f"{where}: field 'label' must be true or false, it is {short(label)}")
        singles.append((*_single(where, row, chat, str(spec)), Reward(float(label))))
    return _grouped(singles, str(spec))


def load_demonstrations(spec: str | Path, *, chat: bool = False) -> list[Group]:
    """Prompt-completion data for SFT: the completions of one prompt as one group, without rewards."""
    return _grouped([(*_single(where, row, chat, str(spec)), None) for where, row in read_rows(spec)], str(spec))


def _pair(where: str, row: Mapping[str, Any], chat: bool, source: str) -> Pair:
    for field in ("chosen", "rejected"):
        if field not in row:
            raise InputError(f"{where}: no field {field!r}; a preference row has prompt, chosen and rejected")
    prompt, (chosen, rejected) = _read(where, row, ("chosen", "rejected"), chat, source)
    return Pair(prompt, Completion(chosen, "", 0, 0), Completion(rejected, "", 1, 1), margin_of(where, row))


def _single(where: str, row: Mapping[str, Any], chat: bool, source: str) -> tuple[Prompt, str]:
    if "prompt" not in row or "completion" not in row:
        raise InputError(f"{where}: needs the fields 'prompt' and 'completion', it has {', '.join(row) or 'none'}")
    prompt, (text,) = _read(where, row, ("completion",), chat, source)
    return prompt, text


def _read(
    where: str, row: Mapping[str, Any], fields: Sequence[str], chat: bool, source: str
) -> tuple[Prompt, list[str]]:
    messages, texts, more = read_row(where, row, fields, chat)
    target = {k: v for k, v in row.items() if k not in READ and v is not None} | more
    check_depth(where, target)
    return Prompt(str(row.get("prompt_id") or fingerprint(messages)), messages, target or None, source), texts


def _grouped(singles: Sequence[tuple[Prompt, str, Reward | None]], source: str) -> list[Group]:
    found: dict[str, list[tuple[Prompt, str, Reward | None]]] = {}
    for single in singles:
        found.setdefault(fingerprint([dict(m) for m in single[0].messages]), []).append(single)
    groups, lost = [], set()
    for rows in found.values():
        first, others = rows[0][0], [p.target or {} for p, *_ in rows[1:]]
        kept = {k: v for k, v in (first.target or {}).items() if all(k in o and o[k] == v for o in others)}
        lost |= {k for t in (first.target or {}, *others) for k in t} - set(kept)
        completions = tuple(Completion(text, "", i, i) for i, (_, text, _) in enumerate(rows))
        prompt = Prompt(first.id, first.messages, kept or None, first.source)
        groups.append(Group(prompt, completions, tuple(r for _, _, r in rows if r is not None)))
    if lost:
        warnings.warn(
            f"{source}: {', '.join(sorted(lost))} left out for prompts whose completions differ in it", stacklevel=3
        )
    return groups
