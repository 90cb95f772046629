"""GROUPS or PAIRS and their embeddings to what a probe is fitted on: rows, their units (rows, chunks, pairs) and folds.

A row is one scored completion. Rows come sorted by prompt id, so neither the order of the groups nor their number in a
file changes a fit. Unscored (NaN) rows are dropped and counted. It does not know losses' formulas or solvers.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.learners.completion.probe.losses import LOSS_UNITS
from trimtab.segments import mean_by
from trimtab.types import Group, Pair, Reward, canonical_json, fingerprint

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Units:
    """What one entry of a loss is about: rows `index_UK` (U, K), `mask_UK` False where a slot is empty.

    A row has K = 1; a chunk K completions of one prompt; a pair has chosen, rejected, then others of the prompt.
    `prompt_U` is the prompt of each unit, as an index into the sorted prompts.
    """

    index_UK: Ints
    mask_UK: npt.NDArray[np.bool_]
    prompt_U: Ints

    def of(self, keep_P: npt.NDArray[np.bool_]) -> "Units":
        """The units of the prompts that `keep_P` marks."""
        keep_U = keep_P[self.prompt_U]
        return Units(self.index_UK[keep_U], self.mask_UK[keep_U], self.prompt_U[keep_U])


@dataclass(frozen=True, eq=False)
class Labels:
    """Rewards of the rows and whose they are: `prompt_R` indexes `prompts`, the sorted distinct prompt labels."""

    reward_R: Floats
    prompt_R: Ints
    prompts: tuple[Any, ...]
    pairs_B2: Ints | None = None
    """Given preferences as (chosen row, rejected row); None makes every better-against-worse pair of a prompt."""


def make_labels(reward: npt.ArrayLike, prompt_index: npt.ArrayLike, pairs: npt.ArrayLike | None = None) -> Labels:
    """Labels from flat arrays; InputError for shapes that disagree or rewards that are not finite."""
    reward_R, label_R = np.asarray(reward, dtype=np.float64), np.asarray(prompt_index)
    if reward_R.ndim != 1 or reward_R.shape != label_R.shape:
        raise InputError(f"reward {reward_R.shape} and prompt_index {label_R.shape} must be flat and of one length")
    if not np.isfinite(reward_R).all():
        row = int(np.flatnonzero(~np.isfinite(reward_R))[0])
        raise InputError(f"reward[{row}] is {reward_R[row]}; drop unscored rows (and their vectors) before the fit")
    names, prompt_R = np.unique(label_R, return_inverse=True)
    return Labels(
        reward_R, prompt_R.astype(np.int64), tuple(names.tolist()), None if pairs is None else np.asarray(pairs)
    )


def check_labels(labels: Labels, loss: str) -> None:
    """InputError when nothing can be learnt: no rewards, one prompt, all equal, k = 1 for a loss that compares."""
    reward_R, unit = labels.reward_R, LOSS_UNITS[loss]
    if labels.pairs_B2 is None and len(reward_R) == 0:
        raise InputError("no completion has a reward: score the groups first (rewards.score) and look at the notes")
    if len(labels.prompts) == 1:
        raise InputError(
            f"one training prompt ({labels.prompts[0]!r}): what holds for other prompts cannot be learnt or checked; "
            "sample and score at least two, better fifty"
        )
    if labels.pairs_B2 is not None:
        return
    if (reward_R == reward_R[0]).all():
        raise InputError(
            f"all {len(reward_R)} rewards are equal ({reward_R[0]:g}): nothing can be learnt; "
            "take easier or harder prompts, more completions, or another reward"
        )
    if loss == "ce" and (reward_R.min() < 0 or reward_R.max() > 1):
        raise InputError(
            f"loss 'ce' needs rewards in [0, 1], found {reward_R.min():g} to {reward_R.max():g}; use 'mse'"
        )
    if unit == "row":
        return
    counts_P = np.bincount(labels.prompt_R)
    if counts_P.max() == 1:
        raise InputError(f"loss {loss!r} compares completions of one prompt, but every prompt has k = 1; sample more")
    if not (spread(labels) > 0).any():
        raise InputError(
            f"loss {loss!r} compares completions of one prompt, but within every prompt all rewards are equal: "
            "nothing can be learnt; sample more completions or take other prompts"
        )


def spread(labels: Labels) -> Floats:
    """Highest minus lowest reward of each prompt, shape (P,)."""
    low, high = np.full(len(labels.prompts), np.inf), np.full(len(labels.prompts), -np.inf)
    np.minimum.at(low, labels.prompt_R, labels.reward_R)
    np.maximum.at(high, labels.prompt_R, labels.reward_R)
    return high - low


def make_units(
    labels: Labels, loss: str, *, chunk: int = 10, others: int = 0, max_pairs: int = 256, seed: int = 0,
    drop_rest: bool = False, draws: int = 1,
) -> Units:  # fmt: skip
    """Rows, chunks or pairs that `loss` is a mean over.

    Chunks: one permutation of the completions, shared by all prompts (the paper's code), cut into pieces of `chunk`;
    the last piece of a prompt is shorter, or dropped with `drop_rest` (as in the paper) unless it is its only one.
    `draws` such cuttings follow each other.
    Pairs: all better-against-worse pairs of a prompt, at most `max_pairs` drawn by the seed; `others` further
    completions of the prompt are added to each (for the ratio loss).
    """
    if LOSS_UNITS[loss] == "row":
        index = np.arange(len(labels.reward_R))[:, None]
        return Units(index, np.ones_like(index, dtype=bool), labels.prompt_R)
    members = _members(labels)
    if LOSS_UNITS[loss] == "chunk":
        rng = np.random.default_rng(seed)
        rows = [row for _ in range(draws) for row in _chunks(members, chunk, rng, drop_rest)]
    elif labels.pairs_B2 is not None:
        rows = [(int(labels.prompt_R[c]), np.array([c, r])) for c, r in labels.pairs_B2]
    else:
        rows = _pairs(labels, members, others, max_pairs, seed)
    width = max(len(r) for _, r in rows)
    index, mask = np.zeros((len(rows), width), dtype=np.int64), np.zeros((len(rows), width), dtype=bool)
    for u, (_, r) in enumerate(rows):
        index[u, : len(r)], mask[u, : len(r)] = r, True
    return Units(index, mask, np.array([p for p, _ in rows], dtype=np.int64))


def _members(labels: Labels) -> list[Ints]:
    order = np.argsort(labels.prompt_R, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels.prompt_R, minlength=len(labels.prompts)))[:-1])


def _chunks(members: list[Ints], chunk: int, rng: np.random.Generator, drop_rest: bool) -> list[tuple[int, Ints]]:
    order = rng.permutation(max(map(len, members)))
    rows = []
    for p, member in enumerate(members):
        shuffled = member[order[order < len(member)]]
        pieces = [shuffled[i : i + chunk] for i in range(0, len(shuffled), chunk)]
        if drop_rest and len(pieces) > 1 and len(pieces[-1]) < chunk:
            pieces.pop()
        rows += [(p, piece) for piece in pieces if len(piece) > 1]  # a chunk of one has a constant loss
    return rows


def _pairs(labels: Labels, members: list[Ints], others: int, max_pairs: int, seed: int) -> list[tuple[int, Ints]]:
    rows = []
    for p, member in enumerate(members):
        reward_N = labels.reward_R[member]
        better, worse = np.nonzero(reward_N[:, None] > reward_N[None, :])
        rng = np.random.default_rng(_seed(seed, labels.prompts[p]))
        for b in np.sort(rng.permutation(len(better))[:max_pairs]):
            pair = member[[better[b], worse[b]]]
            rest = np.setdiff1d(member, pair) if others else member[:0]
            rows.append((p, np.concatenate([pair, rng.permutation(rest)[:others]])))
    return rows


def fold_of_prompt(prompts: Sequence[Any], folds: int, seed: int) -> Ints:
    """Fold number of each prompt, shape (P,): dealt in the order of a hash, so that it depends on the label alone."""
    folds = min(folds, len(prompts))
    order = np.argsort([_seed(seed, label) for label in prompts], kind="stable")
    fold_P = np.empty(len(prompts), dtype=np.int64)
    fold_P[order] = np.arange(len(prompts)) % folds
    return fold_P


def chosen_reward(value_R: npt.NDArray[Any], labels: Labels) -> Floats:
    """Reward of each prompt's completion of highest value, ties averaged, shape (P,); NaN for a prompt without rows."""
    P = len(labels.prompts)
    best_P = np.full(P, -np.inf)
    np.maximum.at(best_P, labels.prompt_R, value_R)
    top_R = value_R == best_P[labels.prompt_R]
    return mean_by(np.where(top_R, labels.reward_R, np.nan), labels.prompt_R, P)


def _seed(seed: int, label: Any) -> int:
    return int(fingerprint([seed, str(label)])[:12], 16)


@dataclass(frozen=True)
class Counts:
    """What the rows were made of, and what was left out."""

    prompts: int
    rows: int
    dropped_rows: int
    dropped_prompts: int
    data_hash: str
    trained_on: list[str]
    """`prompt_marks`: who calibrates what was fitted must take other prompts."""


def scored(groups: Sequence[Group]) -> tuple[list[Group], Counts]:
    """Groups sorted by prompt id without unscored completions and without prompts that have none left.

    InputError for a prompt id given twice (join groups of one prompt first) and for infinite rewards.
    """
    kept: list[Group] = []
    total = 0
    for g in sorted(groups, key=lambda g: g.prompt.id):
        if kept and kept[-1].prompt.id == g.prompt.id:
            raise InputError(f"prompt {g.prompt.id!r} comes in two groups; join their completions into one")
        total += len(g.completions)
        reward_N = g.reward_N
        if np.isinf(reward_N).any():
            raise InputError(
                f"prompt {g.prompt.id!r}: a reward is infinite; rewards must be finite, or NaN with a note"
            )
        keep = [i for i in range(len(reward_N)) if not np.isnan(reward_N[i])]
        if keep:
            kept.append(
                replace(g, completions=tuple(g.completions[i] for i in keep), rewards=tuple(g.rewards[i] for i in keep))
            )
    rows = sum(len(g.completions) for g in kept)
    return kept, Counts(len(kept), rows, total - rows, len(groups) - len(kept), _hash(kept), prompt_marks(kept))


def prompt_marks(groups: Sequence[Group]) -> list[str]:
    """What tells the groups' prompts from others: 12 hex digits each of what they ask, sorted. Ids may be reused."""
    return sorted({fingerprint(g.prompt.messages)[:12] for g in groups})


def _hash(groups: Sequence[Group]) -> str:
    digest = hashlib.sha256()
    for g in groups:
        for c, r in zip(g.completions, g.rewards, strict=True):
            digest.update(canonical_json([g.prompt.id, c.model, c.seed, c.index, c.text, r.value]).encode())
    return digest.hexdigest()[:32]


def groups_of_pairs(pairs: Sequence[Pair]) -> tuple[list[Group], Callable[[Sequence[Group]], Ints]]:
    """Groups of the distinct completions that `pairs` mention (reward 1 as chosen, else 0), and a function that gives
    the (B, 2) row numbers of the pairs once the groups are sorted."""
    found: dict[str, tuple[Any, dict[Any, float]]] = {}
    for pair in pairs:
        _, members = found.setdefault(pair.prompt.id, (pair.prompt, {}))
        members[pair.chosen] = 1.0
        members.setdefault(pair.rejected, 0.0)
    groups = [Group(p, tuple(m), tuple(Reward(v) for v in m.values())) for p, m in found.values()]

    def rows(kept: Sequence[Group]) -> Ints:
        place = {}
        for g in kept:
            for c in g.completions:
                place[g.prompt.id, c] = len(place)
        return np.array(
            [[place[p.prompt.id, p.chosen], place[p.prompt.id, p.rejected]] for p in pairs], dtype=np.int64
        ).reshape(-1, 2)

    return groups, rows


def embed_rows(groups: Sequence[Group], embedded: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The embeddings of `groups` as one (R, D) array (float16 stays float16). InputError names a prompt whose array has
    the wrong shape or holds NaN or infinity."""
    if len(embedded) != len(groups):
        raise InputError(f"the embedder gave {len(embedded)} arrays for {len(groups)} groups")
    rows = sum(len(g.completions) for g in groups)
    dim = embedded[0].shape[1] if embedded and embedded[0].ndim == 2 else 0
    dtype = np.float16 if embedded and embedded[0].dtype == np.float16 else np.float32
    X_RD = np.empty((rows, dim), dtype)
    at = 0
    for g, x in zip(groups, embedded, strict=True):
        if x.shape != (len(g.completions), dim):
            raise InputError(
                f"prompt {g.prompt.id!r}: the embedder gave shape {x.shape}, expected {(len(g.completions), dim)}"
            )
        if not np.isfinite(x).all():
            raise InputError(
                f"prompt {g.prompt.id!r}: an embedding holds NaN or infinity; check the model and its dtype"
            )
        X_RD[at : at + len(x)] = x
        at += len(x)
    return cast(npt.NDArray[Any], X_RD)
