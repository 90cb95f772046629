"""Scored GROUPS, cues and states to the held-out reward of every form of a reranker, and to the weights of one form.

The search behind `fit_reranker`: folds of prompts, states scored by ridges, listwise weights on top, the reward of
what each form chooses. Cross-fitting is nested: the weights that judge a fold are learnt from scores of ridges that
saw neither that fold nor the scored row's own. With ridges that saw the judged fold, a weight's sign leans towards what
is right there: pure noise then earned 0.027 more than chance on 40 prompts (29 November 2026).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.learners.completion.reranker.cues import Same, cue_rows, same_class
from trimtab.learners.completion.reranker.solve import Ridge, centre, listwise
from trimtab.segments import Floats, Ints, Segments
from trimtab.types import Group, RewardFn

DRAWS = 6
"""Random halves of every group that the criterion chooses among beside the whole: less noise from one lucky choice."""
TIE = 1e-6


@dataclass(frozen=True)
class Form:
    """One way to read: which cues, which states (None: none) at which l2, and whether equal answers are added up."""

    cues: tuple[str, ...]
    states: str | None = None
    l2: float = 0.0
    pool: bool = False


@dataclass(frozen=True, eq=False)
class Rows:
    """The groups in order of their prompts' ids, their rewards, and the fold of each row (-1: nothing to learn)."""

    groups: list[Group]
    group_R: Ints
    reward_R: Floats
    fold_R: Ints
    fold_P: Ints
    draws: list[npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, groups: Sequence[Group], folds: int, seed: int) -> "Rows":
        """InputError: a prompt twice, fewer than three folds, fewer than two prompts whose rewards differ."""
        groups = sorted(groups, key=lambda g: g.prompt.id)
        if len({g.prompt.id for g in groups}) < len(groups):
            raise InputError("a prompt comes in two groups; join their completions into one")
        if folds < 3:
            raise InputError(
                f"a reranker needs at least 3 folds (one to judge, one to score, one to learn), not {folds}"
            )
        rewards = [g.reward_N for g in groups]
        told = np.array([bool(np.isfinite(r).any() and np.nanmax(r) > np.nanmin(r)) for r in rewards], dtype=bool)
        if told.sum() < 2:
            raise InputError(
                f"{told.sum()} of {len(groups)} prompts have completions of different reward: nothing can be learnt; "
                "score the groups, sample more completions or take other prompts"
            )
        rng = np.random.default_rng(seed)
        fold_P = np.full(len(groups), -1)
        fold_P[told] = rng.permutation(told.sum()) % min(folds, told.sum())
        sizes = [len(g.completions) for g in groups]
        group_R = np.repeat(np.arange(len(groups)), sizes)
        reward_R = np.concatenate(rewards)
        scored_R = np.isfinite(reward_R)
        half_R = np.repeat([(n + 1) // 2 for n in sizes], sizes)
        ranks = [np.concatenate([rng.permutation(n) for n in sizes]) for _ in range(DRAWS)]
        draws = [scored_R, *(scored_R & (rank_R < half_R) for rank_R in ranks)]
        return cls(groups, group_R, reward_R, np.where(scored_R, fold_P[group_R], -1), fold_P, draws)

    def chosen(self, value_R: Floats) -> Floats:
        """The reward of the highest value (ties averaged) of each learnable prompt: half of it from choosing among all
        its completions, half from random halves of them (NaN where a half holds nothing scored)."""
        learnable = np.flatnonzero(self.fold_P >= 0)
        draws = []
        for scored in self.draws:
            rows = scored & (self.fold_R >= 0)
            group, value, reward = self.group_R[rows], value_R[rows], self.reward_R[rows]
            runs, taken_P = Segments.of(group), np.full(len(self.groups), np.nan)
            top = value >= runs.rows(runs.max(value)) - 1e-12
            taken_P[group[runs.starts]] = runs.sum(np.where(top, reward, 0.0)) / runs.sum(top.astype(float))
            draws.append(taken_P[learnable])
        halves = np.nan_to_num(np.stack(draws[1:]), nan=0.0).sum(0) / np.maximum(np.isfinite(draws[1:]).sum(0), 1)
        return (draws[0] + halves) / 2

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return int(self.fold_P.max()) + 1

    def cross_fitted(self, z_FRC: Sequence[Floats]) -> Floats:
        """Each row's value by listwise weights of the other folds, (R,); 0 where a row has no fold.

        z_FRC[f] are the columns (R, C) that judge fold f: nothing in its other rows may have been learnt from fold f.
        """
        value_R = np.zeros(len(self.fold_R))
        for fold in range(self.folds):
            z_RC = z_FRC[fold]
            rest, rows = (self.fold_R >= 0) & (self.fold_R != fold), self.fold_P[self.group_R] == fold
            value_R[rows] = z_RC[rows] @ listwise(z_RC[rest], self.reward_R[rest], self.group_R[rest])
        return value_R


@dataclass(frozen=True, eq=False)
class View:
    """One embedding: its within-prompt spread by column, the sums of its folds, and every row's held-out scores."""

    scale_D: npt.NDArray[np.float32]
    ridge: Ridge
    score_SR: Floats
    """A row for each l2, by the ridge without the scored row's fold, divided by its spread `spread_S`: what the weights
    of the chosen form are learnt from."""
    spread_S: Floats
    judge_FSR: Floats
    """What judges fold f: the same, by ridges that left out f as well, divided by the spread over the other folds."""

    @classmethod
    def of(cls, rows: Rows, x_RD: npt.NDArray[Any], l2s: Sequence[float]) -> "View":
        """InputError for embeddings of the wrong shape or not finite."""
        if x_RD.ndim != 2 or len(x_RD) != len(rows.group_R) or not np.isfinite(x_RD).all():
            raise InputError(f"embeddings of shape {x_RD.shape} for {len(rows.group_R)} completions, or not finite")
        x_RD = centre(x_RD.astype(np.float32), rows.group_R).astype(np.float32)
        scale_D = x_RD.std(0)
        x_RD *= np.where(scale_D > 0, 1 / np.where(scale_D > 0, scale_D, 1), 0)
        learnt = rows.fold_R >= 0
        y_R = np.zeros(len(x_RD))
        y_R[learnt] = centre(rows.reward_R[learnt], rows.group_R[learnt])
        ridge = Ridge.of(x_RD, y_R, rows.fold_R)
        raw_FSR = _held_out(rows, ridge, x_RD, l2s)
        own_R = np.maximum(rows.fold_P[rows.group_R], 0)
        score_SR = raw_FSR[own_R, :, np.arange(len(x_RD))].T
        spread_S = _spread(score_SR[:, learnt])
        judge = [s / _spread(s[:, learnt & (rows.fold_R != f)])[:, None] for f, s in enumerate(raw_FSR)]
        return cls(scale_D, ridge, score_SR / spread_S[:, None], spread_S, np.stack(judge))

    def weights(self, l2s: Sequence[float], place: int) -> Floats:
        """Weights on raw columns, of all folds, whose scores are in the units of `score_SR[place]`."""
        weight_D = self.ridge.weights(l2s[place : place + 1])[0]
        inverse_D = np.where(self.scale_D > 0, 1 / np.where(self.scale_D > 0, self.scale_D, 1), 0)
        return weight_D * inverse_D / self.spread_S[place]


def _held_out(rows: Rows, ridge: Ridge, x_RD: npt.NDArray[np.float32], l2s: Sequence[float]) -> Floats:
    """(F, S, R): every row's scores by the ridges without its own fold and without fold f."""
    F, S, D = rows.folds, len(l2s), x_RD.shape[1]
    weight_FFSD = np.zeros((F, F, S, D), np.float32)
    for f in range(F):
        for g in range(f, F):
            weight_FFSD[f, g] = weight_FFSD[g, f] = ridge.weights(l2s, f, g)
    fold_R, score_FSR = rows.fold_P[rows.group_R], np.zeros((F, S, len(x_RD)))
    for g in range(F):
        own = fold_R == g
        score_FSR[:, :, own] = (weight_FFSD[g].reshape(F * S, D) @ x_RD[own].T).reshape(F, S, -1)
    return score_FSR


def _spread(score_SR: Floats) -> Floats:
    return np.maximum(score_SR.std(1), 1e-12)


@dataclass(frozen=True, eq=False)
class Search:
    """Everything that forms are made of: rows, cue columns, views and classes."""

    rows: Rows
    column_R: Mapping[str, Floats]
    """Each cue centred within its group and divided by its spread over all rows."""
    spread: Mapping[str, float]
    views: Mapping[str, View]
    l2s: tuple[float, ...]
    class_R: Ints

    @classmethod
    def of(
        cls, rows: Rows, cues: Sequence[str], same: Same, states: Mapping[str, npt.NDArray[Any]], l2s: Sequence[float],
        signals: Mapping[str, RewardFn] | None = None,
    ) -> "Search":  # fmt: skip
        """Reads the cues and solves the ridge of every state and fold."""
        raw_RC = cue_rows(rows.groups, cues, same, signals)
        spread = {c: float(raw_RC[:, i].std()) or 1.0 for i, c in enumerate(cues)}
        column_R = {c: raw_RC[:, i] / spread[c] for i, c in enumerate(cues)}
        views = {name: View.of(rows, x_RD, l2s) for name, x_RD in states.items()}
        parts, base = [], 0
        for g in rows.groups:
            parts.append(same_class(g, same) + base)
            base += len(g.completions)
        return cls(rows, column_R, spread, views, tuple(l2s), np.concatenate(parts))

    def forms(self, cues: Sequence[tuple[str, ...]], pool: Sequence[bool]) -> Iterator[tuple[Form, Floats]]:
        """Every form and what it takes from each learnable prompt, held out."""
        for name, place in [(None, 0), *((n, i) for n in self.views for i in range(len(self.l2s)))]:
            for names in cues:
                form = Form(tuple(names), name, self.l2s[place] if name is not None else 0.0)
                if not names and name is None:
                    continue
                value_R = self.column_R[form.cues[0]] if is_null(form) else self.held_out(form)
                for p in pool:
                    wanted = Form(form.cues, form.states, form.l2, p)
                    yield wanted, self.rows.chosen(self.pooled(value_R) if p else value_R)

    def held_out(self, form: Form) -> Floats:
        """Every row's value by what the other folds teach, (R,)."""
        if form.states is None:
            return self.rows.cross_fitted([self.columns(form)] * self.rows.folds)
        judge_FSR, place = self.views[form.states].judge_FSR, self.l2s.index(form.l2)
        return self.rows.cross_fitted([self.columns(form, scores_SR[place]) for scores_SR in judge_FSR])

    def columns(self, form: Form, score_R: Floats | None = None) -> Floats:
        """(R, C) standardised cues of a form; the last column are the scores of its states, `score_R` where given."""
        z = [self.column_R[c] for c in form.cues]
        if form.states is not None:
            z.append(self.views[form.states].score_SR[self.l2s.index(form.l2)] if score_R is None else score_R)
        return np.stack(z, axis=1)

    def pooled(self, value_R: Floats) -> Floats:
        """`pooled` of every group at once."""
        runs = Segments.of(self.rows.group_R)
        shifted = value_R - runs.rows(runs.max(value_R))
        return np.log(np.bincount(self.class_R, np.exp(shifted))[self.class_R]) + TIE * shifted

    def weights(self, form: Form) -> tuple[Floats, npt.NDArray[np.float32]]:
        """A form's weights on raw cues (C,) and on raw states (D,), () without states, from all folds."""
        learnt, z_RC = self.rows.fold_R >= 0, self.columns(form)
        w = listwise(z_RC[learnt], self.rows.reward_R[learnt], self.rows.group_R[learnt])
        if is_null(form):
            w = np.ones(1)
        cue_C = w[: len(form.cues)] / np.array([self.spread[c] for c in form.cues]).reshape(-1)
        if form.states is None:
            return cue_C, np.zeros(0, np.float32)
        state_D = w[-1] * self.views[form.states].weights(self.l2s, self.l2s.index(form.l2))
        return cue_C, state_D.astype(np.float32)


def is_null(form: Form) -> bool:
    """Whether a form is the mean log-prob itself: its weight is 1 and is not learnt, for with few prompts even its sign
    can come out wrong (five folds of 111 MBPP prompts, 23 November 2026), and then it is no null."""
    return form.cues == ("mean_logprob",) and form.states is None


def complexity(form: Form) -> int:
    """How much a form may learn: a point a cue, one for states, two for adding up equal answers."""
    return len(form.cues) + (form.states is not None) + 2 * form.pool


def choose(tried: Sequence[tuple[Form, Floats]], margin: float) -> tuple[Form, Floats]:
    """The form of highest reward, where a more complex one must be `margin` standard errors better than what it
    replaces (paired over prompts; Breiman's one-standard-error rule). Of equals the first.

    The best of several equally complex forms must be better by what the best of so many would be by luck.
    """
    best: tuple[Form, Floats] | None = None
    for level in sorted({complexity(f) for f, _ in tried}):
        rivals = [t for t in tried if complexity(t[0]) == level]
        candidate = max(rivals, key=lambda t: float(t[1].mean()))
        if best is None:
            best = candidate
            continue
        gap_P = candidate[1] - best[1]
        needed = luck(np.stack([reward_P - best[1] for _, reward_P in rivals], axis=1), margin)
        if gap_P.mean() > needed * gap_P.std() / np.sqrt(len(gap_P)) + 1e-12:
            best = candidate
    if best is None:
        raise InputError("no form to choose from: give at least one set of cues")
    return best


def luck(gap_PK: Floats, margin: float, draws: int = 1000) -> float:
    """Standard errors that the best of K gains exceeds as often by luck as a single one exceeds `margin` of them.

    The gains' own correlation counts (K equal columns give `margin`): a multiplier bootstrap of the largest of the K
    gains in their standard errors (Chernozhukov et al. 2013), the same draws each time.
    """
    spread_K = gap_PK.std(0)
    z_PK = (gap_PK - gap_PK.mean(0))[:, spread_K > 0] / spread_K[spread_K > 0]
    if z_PK.shape[1] < 2 or margin <= 0:
        return margin
    flips_DP = np.random.default_rng(0).normal(size=(draws, len(z_PK)))
    rate = (1 + math.erf(margin / math.sqrt(2))) / 2
    return max(margin, float(np.quantile((flips_DP @ z_PK).max(1) / np.sqrt(len(z_PK)), rate)))


def pooled(value_N: Floats, class_N: Ints) -> Floats:
    """log sum of exp(value) over the completions of the same class, ties within it broken by the value itself.

    With values that are log-odds of being the right one, this is the log-odds that the class is right: majority vote
    when all values are equal, each vote weighted by the reranker otherwise.
    """
    shifted = value_N - value_N.max(initial=-np.inf) if len(value_N) else value_N
    return np.log(np.bincount(class_N, np.exp(shifted)))[class_N] + TIE * shifted
