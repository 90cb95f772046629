"""RewardBench-style files to a reward model's accuracy by subset, null rankers beside it; best-of-4 with ties.

    {"prompt": ..., "chosen": "text", "rejected": "text", "subset": "math"}             RewardBench: one against one
    {"prompt": ..., "chosen": ["text"], "rejected": ["a", "b", "c"], "subset": "focus"}        RewardBench 2: best of 4
    {"prompt": ..., "chosen": ["4", "four"], "rejected": ["5"], "subset": "ties"}              several right answers

A row counts 1 when every chosen completion is above every rejected one; in best-of-4 a chosen one that shares the top
gets its share (four equal values: 0.25, as chance). Where several are right (subset "ties", or a row with more than one
chosen) the right ones must also lie closer together than the gap to the best wrong one; RewardBench 2 weighs these two
and more into one score of its own, which this is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.data.messages import prompt_messages
from trimtab.data.rows import read_rows
from trimtab.errors import InputError
from trimtab.evaluation.metrics import Interval, mean_interval
from trimtab.evaluation.reward_models.report import null_values
from trimtab.intervals import check_draws, percentiles, resampled
from trimtab.types import Completion, Group, Prompt, RewardFn, fingerprint


@dataclass(frozen=True)
class Item:
    """One row: the prompt's group, its first `right` completions being the chosen ones."""

    group: Group
    right: int
    subset: str


@dataclass(frozen=True)
class SubsetScore:
    """A ranking's score on a subset ("all": the mean over subsets, as RewardBench averages)."""

    ranking: str
    subset: str
    score: Interval
    unscored: int


def load_rewardbench(spec: str | Path) -> list[Item]:
    """Rows of a .jsonl(.gz) or .parquet file, or of a hub data set `org/name[:split]`. Text prompts become user
    messages. InputError names file, line and field."""
    out = []
    for where, row in read_rows(spec):
        sides = [_texts(where, row, field) for field in ("chosen", "rejected")]
        if "prompt" not in row:
            raise InputError(f"{where}: no field 'prompt'; a row has prompt, chosen, rejected and subset")
        messages = prompt_messages(where, row, row["prompt"], chat=True, field="prompt")
        prompt = Prompt(str(row.get("id", fingerprint([*map(dict, messages)]))), messages, None, str(spec))
        texts = [t for side in sides for t in side]
        completions = tuple(Completion(t, "", 0, i) for i, t in enumerate(texts))
        out.append(Item(Group(prompt, completions), len(sides[0]), str(row.get("subset", "all"))))
    return out


def rewardbench(
    items: Sequence[Item], rankers: Mapping[str, RewardFn], *, draws: int = 10_000, seed: int = 0
) -> list[SubsetScore]:
    """Scores of every ranking, and of longest, shortest and random, on every subset and on all of them.

    A row with an unscored completion counts as wrong (its best cannot be told) and is counted.
    """
    if not items:
        raise InputError("no rows to score")
    groups = [i.group for i in items]
    values = {name: [[r.value for r in row] for row in fn(groups)] for name, fn in rankers.items()}
    nulls = null_values(groups, seed)[0]
    values |= {name: [list(v) for v in nulls[name]] for name in ("longest", "shortest", "random")}
    subsets = sorted({i.subset for i in items})
    out = []
    for name, rows in values.items():
        score_I = np.array([item_score(v, i.right) for v, i in zip(rows, items, strict=True)])
        lost_I = np.array([not np.isfinite(v).all() for v in rows])
        means = []
        for subset in subsets:
            at = np.array([i.subset == subset for i in items])
            means.append(mean_interval(score_I[at], draws=draws, seed=seed))
            out.append(SubsetScore(name, subset, means[-1], int(lost_I[at].sum())))
        if len(subsets) > 1:
            out.append(SubsetScore(name, "all", _macro(score_I, items, subsets, draws, seed), int(lost_I.sum())))
    return out


def item_score(value_N: npt.ArrayLike, right: int) -> float:
    """1 when the first `right` values are above all others, a share of the top when there is one right one and it ties;
    with several, also the spread of the right ones must be smaller than the gap below them. NaN gives 0."""
    value = np.asarray(value_N, float)
    if not np.isfinite(value).all():
        return 0.0
    good, bad = value[:right], value[right:]
    if right == 1:
        top = value == value.max()
        return float(top[0]) / float(top.sum())
    gap = float(good.min() - bad.max())
    return float(gap > 0 and float(good.max() - good.min()) < gap)


def table(scores: Sequence[SubsetScore]) -> str:
    """The scores as text, a ranking a line, "all" last."""
    subsets = list(dict.fromkeys(s.subset for s in scores))
    lines = [f"{'ranking':16} " + " ".join(f"{s[:22]:>22}" for s in subsets)]
    for name in dict.fromkeys(s.ranking for s in scores):
        mine = {s.subset: s for s in scores if s.ranking == name}
        lost = sum(s.unscored for s in mine.values() if s.subset != "all")
        lines.append(
            f"{name:16} " + " ".join(f"{mine[s].score!s:>22}" for s in subsets) + (f"  {lost} unscored" if lost else "")
        )
    return "\n".join(lines)


def _macro(score_I: Any, items: Sequence[Item], subsets: Sequence[str], draws: int, seed: int) -> Interval:
    """Mean of the subsets' means; rows are resampled within their subset."""
    rng = np.random.default_rng(seed)
    parts = [score_I[[i.subset == s for i in items]] for s in subsets]
    check_draws(draws)
    drawn = np.mean([resampled(p[None], draws, rng)[:, 0] for p in parts], axis=0)
    return percentiles(float(np.mean([p.mean() for p in parts])), drawn, len(items))


def _texts(where: str, row: Mapping[str, Any], field: str) -> list[str]:
    value = row.get(field)
    if isinstance(value, str):
        return [value]
    if isinstance(value, Sequence) and value and all(isinstance(v, str) for v in value):
        return list(value)
    raise InputError(f"{where}: field {field!r} must be a text or a list of texts, it is {str(value)[:60]!r}")
