"""What both settings share: vectors by completion, one arm (teacher, N, pairing, filters) of one seed, figures.

An arm is scored by a judge that is neither teacher nor labeller: the gold rewards that the test groups carry. Figures
are kept per test prompt: intervals are paired bootstraps over prompts (means over the seeds a prompt was tested in).
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.evaluation.metrics import mean_interval, paired_bootstrap, ranking_accuracy
from trimtab.learners import fit_pairwise, fit_probe_pairs, pseudo_pairs
from trimtab.learners.completion.west_of_n.pseudo_pairs import PseudoPair, filter_pairs, mix
from trimtab.types import Group, Pair


@dataclass(frozen=True, eq=False)
class Vectors:
    """An Embedder that looks its rows up: (prompt id, completion's model and index) to a vector."""

    name: str
    rows: dict[tuple[str, str, int], np.ndarray] = field(repr=False)

    @classmethod
    def of(cls, name: str, groups: Sequence[Group], vectors: Sequence[np.ndarray]) -> "Vectors":
        return cls(name, {
            (g.prompt.id, c.model, c.index): x for g, X in zip(groups, vectors, strict=True)
            for c, x in zip(g.completions, X, strict=True)
        })  # fmt: skip

    @property
    def card(self) -> dict[str, Any]:
        return {"kind": "vectors", "name": self.name}

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [np.stack([self.rows[g.prompt.id, c.model, c.index] for c in g.completions]) for g in groups]


@dataclass(frozen=True)
class Teacher:
    """kind: "linear" (Bradley-Terry probe) or "pairwise" (net of `hidden` units), on `embed`."""

    kind: str
    embed: Vectors
    l2: float = 0.1
    hidden: int = 32

    def __call__(self, pairs: Sequence[Pair], seed: int) -> Any:
        if self.kind == "linear":
            return fit_probe_pairs(pairs, self.embed, l2=self.l2, seed=seed)
        return fit_pairwise(pairs, self.embed, hidden=self.hidden, l2=self.l2, seed=seed)


def label_pairs(groups: Sequence[Group], per_prompt: int, flip: float, rng: np.random.Generator) -> list[Pair]:
    """Random pairs of different gold reward, at most `per_prompt` a prompt, turned round with probability `flip`."""
    out = []
    for g in groups:
        better, worse = np.nonzero(g.reward_N[:, None] > g.reward_N[None, :])
        for k in rng.permutation(len(better))[:per_prompt]:
            c, r = g.completions[better[k]], g.completions[worse[k]]
            c, r = (r, c) if rng.random() < flip else (c, r)
            if c.text != r.text:
                out.append(Pair(g.prompt, c, r))
    return out


def pair_errors(teacher: Any, groups: Sequence[Group]) -> dict[str, float]:
    """The share of a prompt's pairs of different gold reward that the teacher orders wrongly, by prompt id.

    Its mean over prompts stands for the epsilon of theorem 4.1, which is a maximum over all pairs.
    """
    errors = {}
    for g in groups:
        better, worse = np.nonzero(g.reward_N[:, None] > g.reward_N[None, :])
        if len(better):
            asked = np.stack([better, worse], axis=1)
            if getattr(teacher, "pairwise", False):
                p = teacher([g], [asked])[0]
            else:
                v = np.array([r.value for r in teacher([g])[0]])
                p = 1 / (1 + np.exp(-np.clip(v[better] - v[worse], -700, 700)))
            errors[g.prompt.id] = float(np.mean(p < 0.5) + 0.5 * np.mean(p == 0.5))
    return errors


def gold_gaps(pairs: Sequence[Any], gold: dict[tuple[str, str, int], float]) -> dict[str, float]:
    """Gold reward of the chosen one minus that of the rejected one, by prompt id; NaN where one is not judged."""
    return {
        p.pair.prompt.id: gold.get((p.pair.prompt.id, p.pair.chosen.model, p.pair.chosen.index), math.nan)
        - gold.get((p.pair.prompt.id, p.pair.rejected.model, p.pair.rejected.index), math.nan)
        for p in pairs
    }


OF_PAIRS = ("error", "pseudo_accuracy", "pseudo_ties_half")
"""Measures of teachers and their pairs, which have no gain over a base."""


@dataclass
class Board:
    """Figures of every arm: per test prompt over seeds, and per seed."""

    by_prompt: dict[str, dict[str, dict[str, list[float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    )
    by_seed: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def test(self, arm: str, student: Any, groups: Sequence[Group], sure_gap: float = 0.0) -> None:
        """Accuracy within prompts, on sure pairs (gold gap above `sure_gap`), gold reward of the best of N."""
        for g, row in zip(groups, student(groups), strict=True):
            value, gold = np.array([r.value for r in row]), g.reward_N
            known = np.isfinite(gold)
            mine = self.by_prompt[arm]
            mine["accuracy"][g.prompt.id].append(ranking_accuracy(value, gold))
            if sure_gap:
                gap = gold[:, None] - gold[None, :] > sure_gap
                order = (np.sign(value[:, None] - value[None, :]) + 1) / 2
                mine["sure"][g.prompt.id].append(float(order[gap].mean()) if gap.any() else math.nan)
            top = value[known] == value[known].max()
            mine["best_of_n"][g.prompt.id].append(float(gold[known][top].mean()))

    def add(self, by_prompt: Any, by_seed: Any) -> None:
        """Another board's figures."""
        for arm, measures in by_prompt.items():
            for name, prompts in measures.items():
                for i, values in prompts.items():
                    self.by_prompt[arm][name][i] += values
        for arm, figures in by_seed.items():
            for k, values in figures.items():
                self.by_seed[arm][k] += values

    def by_id(self, arm: str, measure: str, values: dict[str, float]) -> None:
        """One figure a prompt, so that its mean gets an interval."""
        for i, v in values.items():
            self.by_prompt[arm][measure][i].append(v)

    def note(self, arm: str, **figures: float) -> None:
        for k, v in figures.items():
            self.by_seed[arm][k].append(float(v))

    def note_gains(self, base: str) -> None:
        """Of one seed's board: how far an arm's mean is above the base's; `rows` says how it varies over seeds."""
        means = {a: {m: np.nanmean([v for x in p.values() for v in x]) for m, p in ms.items() if m not in OF_PAIRS}
                 for a, ms in self.by_prompt.items()}  # fmt: skip
        for arm, measures in means.items():
            for m in (m for m in measures if m in means[base]):
                gain = measures[m] - means[base][m]
                self.note(arm, **{f"{m}_up": gain > 0, f"{m}_gain_by_seed": gain})

    def rows(self, base: str, draws: int = 4000) -> list[dict[str, Any]]:
        """One row an arm: means with intervals, and the gain over `base`, both over prompts."""
        out = []
        for arm in dict.fromkeys([*self.by_prompt, *self.by_seed]):
            row: dict[str, Any] = {"arm": arm}
            for name, prompts in self.by_prompt.get(arm, {}).items():
                ids = sorted(prompts)
                mine = [np.nanmean(prompts[i]) if np.isfinite(prompts[i]).any() else math.nan for i in ids]
                row[name] = [round(float(x), 4) for x in mean_interval(mine, draws=draws)[:3]]
                if name in OF_PAIRS:
                    continue
                other = self.by_prompt[base][name]
                ref = [np.nanmean(other[i]) if np.isfinite(other[i]).any() else math.nan for i in ids]
                row[f"{name}_gain"] = [round(float(x), 4) for x in paired_bootstrap(mine, ref, draws=draws)[:3]]
            for name, values in self.by_seed.get(arm, {}).items():
                known = [v for v in values if math.isfinite(v)]
                if name.endswith("_by_seed"):
                    row[name] = [round(float(x), 4) for x in mean_interval(known, draws=draws)[:3]]
                    continue
                row[name] = round(float(np.mean(known)), 4) if known else None
            out.append(row)
        return out


def first(groups: Sequence[Group], n: int) -> list[Group]:
    return [replace(g, completions=g.completions[:n], rewards=()) for g in groups]


def arm(
    board: Board, name: str, base: Sequence[Pair], pool: Sequence[Group], test: Sequence[Group],
    gold: dict[tuple[str, str, int], float], teacher: Any, student: Teacher, seed: int, *, n: int,
    pairing: str = "best_vs_worst", confidence: float = 0.0, logprob: float = 0.0, ratio: float = 1.0,
    sure_gap: float = 0.0, likelihood: Callable[[list[PseudoPair]], list[PseudoPair]] | None = None,
) -> Any:  # fmt: skip
    """One arm: pseudo-pairs of the pool's first n, filters, mix, student, figures. Returns the student and the mix."""
    made, _ = pseudo_pairs(first(pool, n), teacher, pairing=pairing, seed=seed)
    made = likelihood(made) if likelihood else made
    kept = filter_pairs(made, confidence=confidence, logprob=logprob)
    mixed = mix(base, [p.pair for p in kept], ratio, seed=seed)
    fitted = student(mixed, seed)
    board.test(name, fitted, test, sure_gap)
    gaps = {i: gap for i, gap in gold_gaps(kept, gold).items() if math.isfinite(gap)}
    told = {i: float(gap > 0) for i, gap in gaps.items() if gap != 0}
    board.by_id(name, "pseudo_accuracy", told)
    board.by_id(name, "pseudo_ties_half", {i: (float(np.sign(gap)) + 1) / 2 for i, gap in gaps.items()})
    logprobs = [p.mean_logprob for p in kept]
    board.note(name, pseudo_differs=len(told) / max(len(gaps), 1), kept=len(kept), mean_logprob=np.mean(logprobs))
    return fitted, mixed


def all_seeds(
    settings: dict[str, tuple[int, Callable[[int], Board]]], folder: Path, limit_s: float
) -> list[dict[str, Any]]:
    """Rows of every setting (its number of seeds, one seed's board), each arm's means and gains over "base".

    A seed's board is kept in `folder`, so a second start goes on; no new one is begun after `limit_s`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun, out = time.time(), []
    for name, (seeds, one_seed) in settings.items():
        total, done = Board(), 0
        for seed in range(seeds):
            file = folder / f"{name.replace('%', '')}-{seed}.json"
            if not file.exists():
                if time.time() - begun > limit_s:
                    continue
                board = one_seed(seed)
                file.write_text(json.dumps([board.by_prompt, board.by_seed]))
                print(name, seed, round(time.time() - begun), flush=True)
            board = Board()
            board.add(*json.loads(file.read_text()))
            board.note_gains("base")
            total.add(board.by_prompt, board.by_seed)
            done += 1
        print(f"\n{name}, {done} seeds")
        for row in total.rows("base") if done else ():
            out.append({"setting": name, "seeds": done, **row})
            print(shown(row), flush=True)
    return out


def shown(row: dict[str, Any]) -> str:
    """An arm's row as a line of text."""
    parts = [f"{row['arm']:32}"]
    for k in ("accuracy", "sure", "best_of_n"):
        if k in row:
            mean, (gain, low, high) = row[k][0], row[f"{k}_gain"]
            parts.append(f"{k} {mean:.3f} ({gain:+.3f} [{low:+.3f}, {high:+.3f}])")
    parts += [f"{k} {row[k][0]:.3f} [{row[k][1]:.3f}, {row[k][2]:.3f}]" for k in OF_PAIRS if k in row]
    parts += [
        f"{k} {row[k]:.3f}"
        for k in ("pseudo_differs", "kept", "mean_logprob", "accuracy_up", "best_of_n_up")
        if row.get(k) is not None
    ]
    return "  ".join(parts)
