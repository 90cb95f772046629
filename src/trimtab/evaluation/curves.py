"""Groups with rewards and values to curves with intervals: over k, β, layers, number of training prompts, pass rate.

The paper's figures 2 to 4 (Q-Probe, arXiv 2402.14688). Every point is a mean over prompts with a bootstrap interval; a
figure is plain data that the report draws and JSON keeps. It draws nothing and fits nothing: what must be fitted anew
comes in as a callable.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.evaluation.choosing import ByValue, Values, aligned, check_groups, chunk_index, rewards_of
from trimtab.evaluation.metrics import Interval, expected_max, mean_interval, mean_known, ranking_accuracy
from trimtab.evaluation.run import greedy_row
from trimtab.types import Group

Rankers = Mapping[str, Values]


@dataclass(frozen=True)
class Curve:
    """Points of one line: `y[i]` is the interval at `x[i]`."""

    name: str
    x: tuple[float, ...]
    y: tuple[Interval, ...]


@dataclass(frozen=True)
class Figure:
    """Curves on one pair of axes, and horizontal `lines` (name to interval) they are read against."""

    title: str
    x_title: str
    y_title: str
    curves: tuple[Curve, ...]
    lines: Mapping[str, Interval]
    log_x: bool = False
    note: str = ""


@dataclass(frozen=True)
class PassRate:
    """A ranking's mean z-scored value of each prompt against the prompt's mean reward, with a least-squares line.

    A steep line means that the ranking spends its capacity on how hard the prompt is, which choosing cannot use;
    `accuracy` is what choosing uses: the share of a prompt's completion pairs ordered rightly (mean over prompts).
    """

    name: str
    pass_rate_P: tuple[float, ...]
    value_P: tuple[float, ...]
    slope: float
    intercept: float
    accuracy: Interval


def reward_against_k(
    groups: Sequence[Group], rankers: Rankers, *, ks: Sequence[int] | None = None, beta: float = 0.0,
    greedy_groups: Sequence[Group] | None = None, permutations: int = 16, draws: int = 10_000, seed: int = 0,
) -> Figure:  # fmt: skip
    """Expected reward of choosing among k completions, for every ranking and the oracle (the paper's Fig. 3).

    `ks` defaults to 1, 2, 4, ... and the smallest group's size.
    """
    largest = check_groups(groups, None)
    ks = doublings(largest) if ks is None else list(ks)
    points: dict[str, list[Interval]] = {name: [] for name in [*rankers, "oracle"]}
    for k in ks:
        check_groups(groups, k)
        for name, reward_P in _rewards(groups, rankers, k, beta, permutations, seed).items():
            points[name].append(mean_interval(reward_P, draws=draws, seed=seed))
        best_P = [expected_max(g.reward_N, k).reward for g in groups]
        points["oracle"].append(mean_interval(best_P, draws=draws, seed=seed))
    curves = tuple(Curve(name, tuple(map(float, ks)), tuple(ys)) for name, ys in points.items())
    how = "The highest value is chosen." if beta == 0 else f"Chosen by softmax, β = {beta:g}."
    lines = _lines(groups, greedy_groups, draws, seed)
    return Figure("Reward against k", "k, completions to choose from", "expected reward", curves, lines, True, how)


def doublings(largest: int) -> list[int]:
    """1, 2, 4, ... up to `largest`, and that."""
    return sorted({1 << i for i in range(largest.bit_length())} | {largest})


def reward_against_beta(
    groups: Sequence[Group], rankers: Rankers, *, betas: Sequence[float] = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    k: int | None = None, greedy_groups: Sequence[Group] | None = None, permutations: int = 16, draws: int = 10_000,
    seed: int = 0,
) -> Figure:  # fmt: skip
    """Expected reward of softmax(value/β) among k completions, for every ranking; β = 0 is the highest value."""
    k = check_groups(groups, k)
    by_beta = {beta: _rewards(groups, rankers, k, beta, permutations, seed) for beta in betas}
    curves = tuple(
        Curve(name, tuple(betas), tuple(mean_interval(by_beta[b][name], draws=draws, seed=seed) for b in betas))
        for name in rankers
    )
    lines = _lines(groups, greedy_groups, draws, seed)
    return Figure("Reward against β", "β", "expected reward", curves, lines, note=f"k = {k}; β in units of the value")


def reward_against_layer(
    groups: Sequence[Group], rankers_by_layer: Mapping[int, Rankers], *, k: int | None = None, beta: float = 0.0,
    greedy_groups: Sequence[Group] | None = None, permutations: int = 16, draws: int = 10_000, seed: int = 0,
) -> Figure:  # fmt: skip
    """Expected reward of choosing among k completions with values read from each layer, for every ranking.

    A layer read off this figure was chosen on these very prompts: choose it on training prompts instead.
    """
    k = check_groups(groups, k)
    layers = sorted(rankers_by_layer)
    names = list(dict.fromkeys(name for layer in layers for name in rankers_by_layer[layer]))
    points: dict[str, dict[int, Interval]] = {name: {} for name in names}
    for layer in layers:
        for name, reward_P in _rewards(groups, rankers_by_layer[layer], k, beta, permutations, seed).items():
            points[name][layer] = mean_interval(reward_P, draws=draws, seed=seed)
    curves = tuple(Curve(name, tuple(map(float, ys)), tuple(ys.values())) for name, ys in points.items())
    lines = _lines(groups, greedy_groups, draws, seed)
    return Figure("Reward against layer", "layer", "expected reward", curves, lines, note=f"k = {k}")


def reward_against_prompts(
    groups: Sequence[Group], fit: Callable[[npt.NDArray[np.intp]], Rankers], sizes: Sequence[int], n_train: int, *,
    repeats: int = 3, k: int | None = None, beta: float = 0.0, greedy_groups: Sequence[Group] | None = None,
    permutations: int = 16, draws: int = 10_000, seed: int = 0,
) -> Figure:  # fmt: skip
    """Expected reward against the number of training prompts (the paper's Fig. 2).

    `fit` takes the numbers (0..n_train−1) of the training prompts it may use and returns values for `groups`. It is
    called `repeats` times a size with different random subsets (once where the subset is everything), and a prompt's
    rewards are averaged over them before the interval over prompts is taken.
    """
    k = check_groups(groups, k)
    rng = np.random.default_rng(seed)
    wrong = next((s for s in sizes if not 1 <= s <= n_train), None)
    if wrong is not None:
        raise InputError(f"size {wrong} is not between 1 and the {n_train} training prompts there are")
    points: dict[str, list[Interval]] = {}
    for size in sizes:
        runs: dict[str, list[list[float]]] = {}
        for _ in range(1 if size == n_train else repeats):
            subset = np.sort(rng.permutation(n_train)[:size])
            for name, reward_P in _rewards(groups, fit(subset), k, beta, permutations, seed).items():
                runs.setdefault(name, []).append(reward_P)
        for name, rewards in runs.items():
            points.setdefault(name, []).append(
                mean_interval(np.mean(rewards, axis=0), draws=draws, seed=seed)  # NaN in one run: NaN, left out
            )
    curves = tuple(Curve(name, tuple(map(float, sizes)), tuple(ys)) for name, ys in points.items())
    lines = _lines(groups, greedy_groups, draws, seed)
    note = f"k = {k}; {repeats} random subsets a size"
    return Figure("Reward against training prompts", "training prompts", "expected reward", curves, lines, True, note)


def value_against_pass_rate(
    groups: Sequence[Group], rankers: Rankers, *, draws: int = 10_000, seed: int = 0
) -> tuple[PassRate, ...]:
    """How much of each ranking is about the prompt and how much about the completion (the paper's Fig. 4)."""
    check_groups(groups, None)
    out = []
    for name, values in rankers.items():
        arrays = aligned(groups, name, values)
        flat = np.concatenate(arrays)
        flat = flat[np.isfinite(flat)]
        centre, spread = (float(flat.mean()), float(flat.std())) if len(flat) else (math.nan, math.nan)
        z_P = np.array([mean_known((v - centre) / (spread or 1.0)) for v in arrays])
        rate_P = np.array([mean_known(g.reward_N) for g in groups])
        slope, intercept = _line(rate_P, z_P)
        accuracy_P = [ranking_accuracy(v, g.reward_N) for v, g in zip(arrays, groups, strict=True)]
        accuracy = mean_interval(accuracy_P, draws=draws, seed=seed)
        out.append(PassRate(name, tuple(rate_P.tolist()), tuple(z_P.tolist()), slope, intercept, accuracy))
    return tuple(out)


def reliability(card: Mapping[str, Any], k: int | None = None) -> Figure:
    """What a calibration's card says against what was right, bin by bin, for the best of `k` (None: of the most).

    The band is that of values that are right just as often as they say (Bröcker and Smith 2007); the bounds of what
    was right are Wilson's.
    """
    known = {row["k"]: row for row in card["by_k"]}
    if not known or (k is not None and k not in known):
        raise InputError(f"the card has figures for k = {', '.join(map(str, known)) or 'nothing'}, not for {k}")
    row = known[max(known) if k is None else k]
    x = tuple(b["value"] for b in row["bins"])
    said = tuple(Interval(b["value"], b["perfect"][0], b["perfect"][1], b["n"]) for b in row["bins"])
    right = tuple(_wilson(b["right"], b["n"]) for b in row["bins"])
    low, high = row["ece_band"]
    note = (
        f"{card['reward'].split('(')[0]}, {row['prompts']} prompts, cross-fitted: mean gap {row['ece']:.3f}, a perfect "
        f"reader's is {low:.3f} to {high:.3f}; Brier score {row['brier']['score']:.3f}, AURC {row['aurc']:.3f}."
    )
    curves = (Curve("right", x, right), Curve("perfectly calibrated", x, said))
    return Figure(f"Said and right: best of {row['k']}", "P(right) as said", "share right", curves, {}, False, note)


def _wilson(rate: float, n: int, z: float = 1.96) -> Interval:
    """A share of n with its 95 % interval by Wilson's score."""
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(rate, max(0.0, centre - half), min(1.0, centre + half), n)


def _rewards(
    groups: Sequence[Group], rankers: Rankers, k: int, beta: float, permutations: int, seed: int
) -> dict[str, list[float]]:
    index_P = chunk_index(groups, k, permutations, seed)
    strategies = [ByValue(name, aligned(groups, name, values), beta) for name, values in rankers.items()]
    return {strategy.name: [e.reward for e in rewards_of(strategy, groups, index_P)] for strategy in strategies}


def _lines(
    groups: Sequence[Group], greedy_groups: Sequence[Group] | None, draws: int, seed: int
) -> dict[str, Interval]:
    lines = {"pass@1": mean_interval([mean_known(g.reward_N) for g in groups], draws=draws, seed=seed)}
    if greedy_groups is not None:
        lines["greedy"] = greedy_row(groups, greedy_groups, draws=draws, seed=seed).reward
    return lines


def _line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep], y[keep]
    if len(x) < 2 or np.ptp(x) == 0:
        return math.nan, math.nan
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return slope, float(y.mean() - slope * x.mean())
