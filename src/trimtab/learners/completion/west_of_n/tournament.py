"""GROUPS and a preference (or pointwise rewards) to the best and the worst completion of each, comparisons counted.

West-of-N (arXiv 2401.12086) takes argmax over ordered pairs of P(first is preferred over second), found by elimination:
N - 1 comparisons for the best, and the first round's losers, about N/2 - 1 more, for the worst. All groups play a round
together, so a preference sees one large batch. It builds no pairs and fits nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError, unknown
from trimtab.types import Group, Preference, completion_seed

Floats = npt.NDArray[np.float64]
FULL_UP_TO = 4
"""Completions of a group up to which "auto" asks every pair: 6 comparisons of four where a knock-out takes 4.6."""


@dataclass(frozen=True)
class Extremes:
    """Best and worst completion of one group; `confidence` is P(best is preferred over worst).

    best == worst, or a confidence not above one half (NaN included), means that there is no pair to be had.
    """

    best: int
    worst: int
    confidence: float
    comparisons: int = 0
    unresolved: int = 0
    """Comparisons that gave NaN; the earlier of the two went on."""
    gap: float | None = None
    """Difference of the pointwise values, the log-odds where the confidence rounds to 1."""

    @property
    def log_odds(self) -> float:
        """Log-odds of the confidence, at most 700."""
        if self.gap is not None:
            return self.gap
        p = self.confidence
        return math.nan if math.isnan(p) else 700.0 if p >= 1 else -700.0 if p <= 0 else math.log(p / (1 - p))

    @property
    def decided(self) -> bool:
        """Whether best and worst differ and the preference says so."""
        return self.best != self.worst and self.log_odds > 0


def pointwise(values: Sequence[npt.ArrayLike]) -> list[Extremes]:
    """Highest and lowest of one value a completion, confidence sigmoid(difference); the first of equal ones, NaN never.

    `comparisons` is 0: values are N forward passes. A group with fewer than two finite values gives best == worst.
    """
    out = []
    for value in values:
        value_N = np.asarray(value, float)
        finite = np.flatnonzero(np.isfinite(value_N))
        if len(finite) < 2:
            out.append(Extremes(0, 0, 0.5))
            continue
        best, worst = (int(finite[pick(value_N[finite])]) for pick in (np.argmax, np.argmin))
        gap = value_N[best] - value_N[worst]
        sure = float(1 / (1 + np.exp(-min(gap, 700))))
        out.append(Extremes(best, worst if gap > 0 else best, sure, gap=float(gap)))
    return out


def knock_out(groups: Sequence[Group], prefer: Preference, *, seed: int = 0) -> list[Extremes]:
    """Best by elimination in a seeded draw, worst by elimination among the first round's losers.

    An odd one out of the first round plays in both halves, so that a transitive preference always gives the true best
    and worst: 3N/2 - 2 comparisons for even N, 3(N - 1)/2 for odd N; one more for the confidence where best and worst
    have not met. One half (a tie) lets the earlier of the two in the draw go on.
    An intransitive preference has no order to find: with noise as large as the merits the pair of highest confidence
    comes out in 34 % of groups of 4 and 12 % of 16 (its confidence is 0.91 there on the average). `full_matrix` is
    exact, at N(N - 1)/2 comparisons: take it where N allows.
    """
    games = [_Games(len(g.completions), completion_seed(seed, g.prompt.id)) for g in groups]
    first = [game.pairs_of(game.draw) for game in games]
    outcome = _play(groups, prefer, games, first)
    tops, bottoms = [], []
    for game, won in zip(games, outcome, strict=True):
        odd = [game.draw[-1]] if len(game.draw) % 2 else []
        tops.append([w for w, _ in won] + odd)
        bottoms.append([loser for _, loser in won] + odd)
    best = _eliminate(groups, prefer, games, tops, 0)
    worst = _eliminate(groups, prefer, games, bottoms, 1)
    last = [
        [(b, w)] if b != w and (b, w) not in game.known else [] for game, b, w in zip(games, best, worst, strict=True)
    ]
    _play(groups, prefer, games, last)
    return [
        Extremes(b, w, game.known.get((b, w), 0.5), game.comparisons, game.unresolved)
        for game, b, w in zip(games, best, worst, strict=True)
    ]


def full_matrix(groups: Sequence[Group], prefer: Preference) -> tuple[list[Extremes], list[Floats]]:
    """The ordered pair of highest P(first is preferred over second), exactly, from every pair asked once.

    Also the (N, N) matrices of P(i is preferred over j): one half on the diagonal, P(j, i) = 1 - P(i, j). N(N - 1)/2
    comparisons, which a judge asks in both orders. Of equal confidences the first pair in row order wins.
    """
    asked = [np.stack(np.triu_indices(len(g.completions), 1), axis=1) for g in groups]
    out, matrices = [], []
    for g, pairs, p in zip(groups, asked, prefer(groups, asked), strict=True):
        matrix = np.full((len(g.completions),) * 2, 0.5)
        matrix[pairs[:, 0], pairs[:, 1]] = p
        matrix[pairs[:, 1], pairs[:, 0]] = 1 - np.asarray(p)
        known = np.where(np.isfinite(matrix), matrix, -np.inf)
        best, worst = np.unravel_index(int(known.argmax()), known.shape) if known.size else (0, 0)
        confidence = float(known[best, worst]) if known.size else 0.5
        missing = int(np.isnan(np.asarray(p)).sum())
        out.append(Extremes(int(best), int(worst), confidence, len(pairs), missing))
        matrices.append(matrix)
    return out, matrices


def extremes(groups: Sequence[Group], teacher: Any, how: str = "auto", *, seed: int = 0) -> list[Extremes]:
    """Best and worst of every group by a teacher: a `RewardFn` (how="pointwise") or a `Preference` ("knock_out",
    "full_matrix"). "auto" asks the teacher: one with `pairwise = True` compares every pair of a group of up to
    `FULL_UP_TO` completions and plays a knock-out in larger ones."""
    ways: dict[str, Callable[[], list[Extremes]]] = {
        "pointwise": lambda: pointwise([[r.value for r in row] for row in teacher(groups)]),
        "knock_out": lambda: knock_out(groups, teacher, seed=seed),
        "full_matrix": lambda: full_matrix(groups, teacher)[0],
    }
    if how == "auto" and getattr(teacher, "pairwise", False):
        return _by_size(groups, teacher, seed)
    how = "pointwise" if how == "auto" else how
    if how not in ways:
        raise unknown("tournament", how, [*ways, "auto"])
    return ways[how]()


def _by_size(groups: Sequence[Group], prefer: Preference, seed: int) -> list[Extremes]:
    small = [g for g in groups if len(g.completions) <= FULL_UP_TO]
    large = [g for g in groups if len(g.completions) > FULL_UP_TO]
    found = iter(full_matrix(small, prefer)[0]) if small else iter(())
    played = iter(knock_out(large, prefer, seed=seed)) if large else iter(())
    return [next(found) if len(g.completions) <= FULL_UP_TO else next(played) for g in groups]


@dataclass
class _Games:
    """One group's draw and what its comparisons said."""

    size: int
    seed: int
    known: dict[tuple[int, int], float] = field(default_factory=dict)
    comparisons: int = 0
    unresolved: int = 0

    @property
    def draw(self) -> list[int]:
        return np.random.default_rng(self.seed).permutation(self.size).tolist() if self.size else [0]

    @staticmethod
    def pairs_of(players: Sequence[int]) -> list[tuple[int, int]]:
        return list(zip(players[::2], players[1::2], strict=False))

    def note(self, i: int, j: int, p: float) -> None:
        self.comparisons += 1
        self.unresolved += int(np.isnan(p))
        self.known[i, j], self.known[j, i] = p, 1 - p


def _play(
    groups: Sequence[Group], prefer: Preference, games: Sequence[_Games], rounds: Sequence[list[tuple[int, int]]]
) -> list[list[tuple[int, int]]]:
    """(winner, loser) of every game of one round; games whose result is known are not asked again."""
    new = [[ij for ij in pairs if ij not in game.known] for game, pairs in zip(games, rounds, strict=True)]
    busy = [n for n, pairs in enumerate(new) if pairs]
    if busy:
        said = prefer([groups[n] for n in busy], [np.array(new[n], dtype=np.intp) for n in busy])
        for n, p_M in zip(busy, said, strict=True):
            if len(p_M) != len(new[n]):
                raise InputError(f"the preference gave {len(p_M)} values for {len(new[n])} comparisons")
            for (i, j), p in zip(new[n], p_M, strict=True):
                games[n].note(i, j, float(p))
    return [
        [(j, i) if game.known[i, j] < 0.5 else (i, j) for i, j in pairs]
        for game, pairs in zip(games, rounds, strict=True)
    ]


def _eliminate(
    groups: Sequence[Group], prefer: Preference, games: Sequence[_Games], pools: Sequence[list[int]], side: int
) -> list[int]:
    """The last one left of every pool: winners go on (side 0) or losers (side 1)."""
    pools = [list(p) for p in pools]
    while any(len(p) > 1 for p in pools):
        outcome = _play(groups, prefer, games, [_Games.pairs_of(p) for p in pools])
        pools = [
            [game[side] for game in won] + (pool[-1:] if len(pool) % 2 else [])
            for won, pool in zip(outcome, pools, strict=True)
        ]
    return [p[0] if p else 0 for p in pools]
