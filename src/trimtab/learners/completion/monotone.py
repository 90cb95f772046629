"""Scores and how often they were right to a rising map of score to P(right): isotonic regression, or Platt's logistic.

Zadrozny and Elkan (KDD 2002) for the first, Platt (1999) for the second. Pure numpy; it knows no groups or rewards.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Map:
    """Score to P(right), for `sizes` = (fewest, most) answers seen.

    `numbers` are knots (2, K), scores above chances ("isotonic": straight between them), or slope and intercept of the
    log-odds ("platt"). No chance is said to be outside [1 / (n + 2), (n + 1) / (n + 2)] after `prompts` = n prompts.
    """

    sizes: tuple[int, int]
    method: str
    prompts: int
    numbers: Floats

    def __call__(self, score: npt.ArrayLike) -> Floats:
        """Chances of finite scores; they never fall where the score rises."""
        score = np.asarray(score, np.float64)
        if self.method == "isotonic":
            chance = np.interp(score, *self.numbers)
        else:
            chance = _sigmoid(self.numbers[0] * score + self.numbers[1])
        return np.clip(chance, 1 / (self.prompts + 2), (self.prompts + 1) / (self.prompts + 2))


def isotonic(score: Floats, rate: Floats, weight: Floats) -> Floats:
    """Knots (2, K) of the rising step function nearest to the rates in weighted squares: adjacent violators pooled.

    All falling runs of a round are pooled at once; any order of pooling ends in the same steps.
    """
    value, mass, ends = rate, weight, np.arange(len(rate))
    while (fall := np.diff(value) <= 0).any():
        block = np.cumsum(np.r_[True, ~fall]) - 1
        total = np.bincount(block, mass)
        value, mass = np.bincount(block, mass * value) / total, total
        ends = ends[np.r_[~fall, True]]
    first = np.r_[0, ends[:-1] + 1]
    knots = np.stack([np.stack([score[first], score[ends]], 1).ravel(), np.repeat(value, 2)])
    return knots[:, np.r_[True, np.diff(knots[0]) > 0]]  # a step of one score has one knot


def platt(score: Floats, rate: Floats, weight: Floats) -> Floats:
    """Slope (0 or more) and intercept of the log-odds, by Newton's method on Platt's smoothed targets.

    The targets are (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), so that perfectly parted scores get a finite slope.
    """
    n_right, n = float(weight @ rate), float(weight.sum())
    high, low = (n_right + 1) / (n_right + 2), 1 / (n - n_right + 2)
    target = rate * high + (1 - rate) * low
    centre = float(weight @ score) / n
    spread = math.sqrt(float(weight @ (score - centre) ** 2) / n)
    base = float(weight @ target) / n
    flat = np.array([0.0, math.log(base / (1 - base))])
    if not spread > 0:
        return flat
    z = (score - centre) / spread
    x = np.stack([z, np.ones_like(z)])

    def loss(at: Floats) -> float:
        logit = at @ x
        return float(weight @ (np.logaddexp(0, logit) - target * logit))

    now = flat
    for _ in range(100):
        chance = _sigmoid(now @ x)
        slope = x @ (weight * (chance - target))
        step = np.linalg.solve((x * (weight * chance * (1 - chance))) @ x.T + 1e-12 * n * np.eye(2), slope)
        size = next((s for s in 0.5 ** np.arange(30) if loss(now - s * step) <= loss(now)), 0.0)
        now = now - size * step
        if size * np.abs(step).max() < 1e-10:
            break
    if now[0] <= 0:  # the best rising line is then the flat one, for the loss is convex
        return flat
    return np.array([now[0] / spread, now[1] - now[0] * centre / spread])


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -x))


METHODS = {"isotonic": isotonic, "platt": platt}
"""Ascending distinct scores, rates and weights, each (R,), to a map's numbers."""
