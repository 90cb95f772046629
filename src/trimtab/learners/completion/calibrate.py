"""Scored GROUPS and any reward to Calibrated: P(right) of the answer that is selected, given how many were seen.

A score calibrated on single answers and then maximised is inflated: the best of sixteen is chosen for its luck, too. So
a map is learnt for each number of answers seen, from the answers that would have been selected. From 1,000 prompts on
it is isotonic (Zadrozny and Elkan 2002), below that Platt's logistic (Platt 1999). It samples and selects nothing.
"""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.adapters import score_answered
from trimtab.errors import InputError, ModelError
from trimtab.fitted import load_fitted, save_fitted
from trimtab.json_file import Kinds
from trimtab.learners.completion.monotone import METHODS, Map
from trimtab.learners.completion.probe.data import fold_of_prompt, prompt_marks, scored
from trimtab.learners.completion.probe.probe import Probe
from trimtab.learners.completion.reliability import reliability
from trimtab.learners.completion.reranker.reranker import Reranker
from trimtab.types import Group, Reward, RewardFn, describe, fingerprint
from trimtab.version import __version__

ISOTONIC_FROM = 1000
"""Prompts from which the map is isotonic: its steps need more data than Platt's two numbers."""
THIN = 50
"""Prompts below which neighbouring numbers of answers share a map."""
FILE, CARD, KIND, REWARD = "maps.safetensors", "card.json", "calibrated", "reward"
_NEEDS: Kinds = {"reward": str, "maps": list}

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Tops(NamedTuple):
    """Answers that would be selected among k: score, 1 if right, the share of subsets that select it, whose it is."""

    score: Floats
    right: Floats
    weight: Floats
    prompt: Ints

    def where(self, at: npt.NDArray[Any]) -> "Tops":
        """Some of them, by a mask or by numbers."""
        return Tops(self.score[at], self.right[at], self.weight[at], self.prompt[at])


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A RewardFn: a group's highest value is P(right) of the answer that `reward` selects from so many.

    The other values keep the order of the scores, each strictly below the one above; they are no chances of their own.
    """

    maps: tuple[Map, ...]
    card: Mapping[str, Any]
    reward: RewardFn | None = None

    def __repr__(self) -> str:
        """Short, and the same for the same maps: it is the manifest's entry."""
        digest = hashlib.sha256(b"".join(m.numbers.tobytes() for m in self.maps)).hexdigest()[:32]
        return f"Calibrated({self.card['reward']}, maps={digest!r})"

    def chance(self, score: npt.ArrayLike, k: int) -> Floats:
        """P(right) of a selected answer of this score, of k that were scored; NaN for a k that was not calibrated."""
        for m in self.maps:
            if m.sizes[0] <= k <= m.sizes[1]:
                return m(score)
        return np.full(np.shape(score), np.nan)

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward a completion. ModelError when there is nothing to score with."""
        if self.reward is None:
            raise ModelError("nothing scores here: Calibrated.load(folder, reward) with the reward of its card")
        return [self._values(row) for row in score_answered(groups, self.reward)]

    def _values(self, row: Sequence[Reward]) -> list[Reward]:
        known = [i for i, r in enumerate(row) if math.isfinite(r.value)]
        out = [Reward(math.nan, r.note or f"its score is {r.value}") for r in row]
        most, above, chance = self.maps[-1].sizes[1], (math.inf, math.inf), math.nan
        values = self.chance([row[i].value for i in known], len(known))
        for i, p in sorted(zip(known, values, strict=True), key=lambda x: -row[x[0]].value):
            if row[i].value < above[0]:  # a step of the map must not make equals of what the scores tell apart
                chance = min(float(p), math.nextafter(above[1], -math.inf))
            above = (row[i].value, chance)
            note = f"calibrated for up to {most} answers, {len(known)} were scored" if math.isnan(p) else ""
            out[i] = Reward(math.nan if note else chance, note)
        return out

    def save(self, folder: str | Path) -> Path:
        """Writes maps.safetensors and card.json into `folder`, and a probe or reranker beside them; returns it."""
        folder = Path(folder)
        if isinstance(self.reward, Probe | Reranker):
            self.reward.save(folder / REWARD)
        return save_fitted(folder, {str(i): m.numbers for i, m in enumerate(self.maps)}, self.card, FILE, CARD)

    @classmethod
    def load(cls, folder: str | Path, reward: RewardFn | None = None) -> "Calibrated":
        """What `folder` holds, with the same values as when it was saved. Without `reward` only `chance` works.

        InputError when files are missing or broken; ModelError when `reward` is not the one that was calibrated.
        """
        folder = Path(folder)
        card, tensors = load_fitted(folder, FILE, CARD, what="calibration", kind=KIND, needs=_NEEDS)
        if reward is not None and describe(reward) != card["reward"]:
            raise ModelError(
                f"{folder} calibrates {card['reward']}, given {describe(reward)}: use that one, or calibrate again"
            )
        try:
            maps = tuple(
                Map((m["sizes"][0], m["sizes"][1]), m["method"], m["prompts"], tensors[str(i)])
                for i, m in enumerate(card["maps"])
            )
        except (KeyError, TypeError, IndexError) as e:
            raise InputError(f"{folder} holds no readable calibration: {e}; calibrate again") from e
        return cls(maps, card, reward)


def calibrate(
    reward: RewardFn, groups: Sequence[Group], *, threshold: float = 0.5, folds: int = 5, relative: bool | None = None,
    draws: int = 4, seed: int = 0,
) -> Calibrated:  # fmt: skip
    """Calibrate a reward on scored groups that it was not fitted on; the same data and seed give the same maps.

    An answer is right when its own reward is above `threshold`. For each k up to the largest group's size the map is
    fitted to what `reward` selects of every subset of k answers, each prompt weighing 1; k with fewer than 50 prompts
    share a map with the next smaller. `relative`: whether a score depends on the other answers of the group (None: for
    a reranker); then `draws` random subsets of each prompt and k are scored as groups of their own.
    What has no finite reward or score is left out and counted. The card's figures come from maps that did not see the
    prompt (cross-fitted in `folds`), one random subset a prompt, at k = 1, 2, 4, ... InputError: prompts that `reward`
    was fitted on, where its card says which; a prompt in two groups; fewer than two prompts.
    """
    _refuse_seen(reward, groups)
    kept, counts = scored(groups)
    scores = [np.array([r.value for r in row]) for row in score_answered(kept, reward)]
    usable = [np.isfinite(s) for s in scores]
    lost = sum(int((~u).sum()) for u in usable)
    left = [(g, s, u) for g, s, u in zip(kept, scores, usable, strict=True) if u.any()]
    if len(left) < 2:
        raise InputError(f"{len(left)} prompts have answers with a reward and a score: calibration takes hundreds")
    right = [(g.reward_N[u] > threshold).astype(float) for g, _, u in left]
    kept = [replace(g, completions=tuple(c for c, ok in zip(g.completions, u, strict=True) if ok), rewards=())
            for g, _, u in left]  # fmt: skip
    if isinstance(reward, Reranker) if relative is None else relative:
        tops = _drawn_tops(reward, kept, right, draws, seed)
    else:
        tops = _exact_tops([s[u] for _, s, u in left], right)
    fold_P = fold_of_prompt([g.prompt.id for g in kept], max(folds, 2), seed)
    maps = tuple(_fit(pool, sizes) for sizes, pool in _pools(tops))
    card = {
        "kind": KIND, "reward": describe(reward), "threshold": threshold, "folds": int(fold_P.max()) + 1, "seed": seed,
        "prompts": len(kept), "completions": sum(map(len, right)), "unscored": counts.dropped_rows, "no_score": lost,
        "data_hash": counts.data_hash, "prompts_hash": fingerprint(prompt_marks(kept)),
        "apart_from_training": "checked" if _marks(reward) else "unknown",
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "trimtab": __version__,
        "maps": [{"sizes": list(m.sizes), "method": m.method, "prompts": m.prompts} for m in maps],
        "by_k": _held_out(tops, fold_P, seed),
    }  # fmt: skip
    return Calibrated(maps, card, reward)


def _marks(reward: RewardFn) -> Sequence[str]:
    """Marks of the prompts that a reward was fitted on; empty where its card does not say."""
    return reward.card.get("trained_on", ()) if isinstance(reward, Probe | Reranker) else ()


def _refuse_seen(reward: RewardFn, groups: Sequence[Group]) -> None:
    seen = set(_marks(reward))
    if both := [g.prompt.id for g in groups if seen.intersection(prompt_marks([g]))]:
        raise InputError(
            f"{len(both)} of {len(groups)} prompts ({both[0]!r} first) are among those that the reward was fitted on, "
            "whose scores are too good: calibrate on other prompts"
        )


def _exact_tops(scores: Sequence[Floats], rights: Sequence[Floats]) -> dict[int, Tops]:
    """What is selected of all subsets of each size: of n answers in ascending order the j-th (from 0) is the highest of
    C(j, k - 1) of the C(n, k) subsets of k. Equal scores share their weight."""
    by_size: dict[int, list[int]] = {}
    for p, s in enumerate(scores):
        by_size.setdefault(len(s), []).append(p)
    found: dict[int, list[Tops]] = {}
    for n, members in sorted(by_size.items()):
        score_PN, right_PN = np.stack([scores[p] for p in members]), np.stack([rights[p] for p in members])
        order = np.argsort(score_PN, axis=1, kind="stable")
        score_PN, right_PN = (np.take_along_axis(x, order, axis=1) for x in (score_PN, right_PN))
        fresh = np.diff(score_PN, axis=1, prepend=np.nan) != 0
        tie = np.cumsum(fresh.ravel()) - 1
        size = np.bincount(tie)
        for k in range(1, n + 1):
            share_N = np.array([math.comb(j, k - 1) / math.comb(n, k) for j in range(n)])
            weight = (np.bincount(tie, np.tile(share_N, len(members))) / size)[tie]
            rows = Tops(score_PN.ravel(), right_PN.ravel(), weight, np.repeat(np.array(members), n))
            found.setdefault(k, []).append(rows.where(weight > 0))
    return {k: _joined(parts) for k, parts in found.items()}


def _drawn_tops(
    reward: RewardFn, groups: Sequence[Group], rights: Sequence[Floats], draws: int, seed: int
) -> dict[int, Tops]:
    """What is selected of `draws` random subsets of each size, each scored by itself; one where all are taken."""
    found: dict[int, Tops] = {}
    for k in range(1, max(len(r) for r in rights) + 1):
        rng, subsets = np.random.default_rng([seed, k]), []
        for p, r in enumerate(rights):
            times = 0 if len(r) < k else 1 if len(r) == k else draws
            subsets += [(p, np.sort(rng.permutation(len(r))[:k])) for _ in range(times)]
        asked = [Group(groups[p].prompt, tuple(groups[p].completions[i] for i in rows)) for p, rows in subsets]
        parts = []
        for (p, rows), row in zip(subsets, score_answered(asked, reward), strict=True):
            score = np.array([x.value for x in row])
            if np.isfinite(score).all():
                top = score == score.max()
                right, m = rights[p][rows[top]], int(top.sum())
                parts.append(Tops(score[top], right, np.full(m, 1 / m), np.full(m, p)))
        if parts:
            rows = _joined(parts)
            found[k] = rows._replace(weight=rows.weight / np.bincount(rows.prompt, rows.weight)[rows.prompt])
    return found


def _joined(parts: Sequence[Tops]) -> Tops:
    score, right, weight, prompt = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Tops(score, right, weight, prompt)


def _pools(tops: Mapping[int, Tops]) -> list[tuple[tuple[int, int], Tops]]:
    """Numbers of answers that share a map, fewest first: from the largest down until enough prompts have so many."""
    out: list[tuple[tuple[int, int], Tops]] = []
    held: list[int] = []
    most = max(tops)
    for k in range(most, 0, -1):
        held += [k] * (k in tops)
        if held and (len(np.unique(tops[held[-1]].prompt)) >= THIN or k == 1):
            rows = _joined([tops[i] for i in held])
            share = np.bincount(rows.prompt, rows.weight)[rows.prompt]
            out.append(((k, most), rows._replace(weight=rows.weight / share)))
            held, most = [], k - 1
    return out[::-1]


def _fit(rows: Tops, sizes: tuple[int, int], prompts: int = 0) -> Map:
    """The map of these rows; `prompts` decides how it is fitted where the rows are a part of them."""
    own = len(np.unique(rows.prompt))
    order = np.lexsort((rows.prompt, rows.right, rows.score))  # sums do not depend on the order of the groups
    score, at = np.unique(rows.score[order], return_inverse=True)
    weight = np.bincount(at, rows.weight[order]).astype(np.float64)
    rate = np.bincount(at, (rows.weight * rows.right)[order]) / weight
    method = "isotonic" if (prompts or own) >= ISOTONIC_FROM else "platt"
    return Map(sizes, method, own, METHODS[method](score, rate, weight))


def _held_out(tops: Mapping[int, Tops], fold_P: Ints, seed: int) -> list[dict[str, Any]]:
    """The card's figures by k, of maps that did not see the prompt."""
    largest, out = max(tops), []
    shown = {k for k in tops if k == largest or k & (k - 1) == 0}
    for sizes, pool in _pools(tops):
        prompts = len(np.unique(pool.prompt))
        fold_R = fold_P[pool.prompt]
        maps = {
            f: _fit(pool.where(fold_R != f), sizes, prompts) for f in np.unique(fold_R) if (fold_R != f).any()
        }  # fmt: skip
        for k in sorted(shown & set(range(sizes[0], sizes[1] + 1))):
            served = _served(tops[k], np.random.default_rng([seed, k]))
            fold = fold_P[served.prompt]
            value = np.full(len(fold), np.nan)
            for f, m in maps.items():
                value[fold == f] = m(served.score[fold == f])
            known = np.isfinite(value)
            if known.any():
                figures = reliability(value[known], served.right[known], seed=seed)
                out.append({"k": k, "prompts": int(known.sum()), **figures})
    return out


def _served(rows: Tops, rng: np.random.Generator) -> Tops:
    """One selected answer a prompt, drawn by its weight: what serving one subset of each would have given."""
    rows = rows.where(np.lexsort((rows.right, rows.score, rows.prompt)))
    starts = np.flatnonzero(np.r_[True, np.diff(rows.prompt) > 0])
    total = np.cumsum(rows.weight)
    before = np.r_[0.0, total[starts[1:] - 1]]
    until = total[np.r_[starts[1:] - 1, len(total) - 1]]
    at = np.searchsorted(total, before + rng.random(len(starts)) * (until - before), side="right")
    return rows.where(np.clip(at, starts, np.r_[starts[1:], len(total)] - 1))
