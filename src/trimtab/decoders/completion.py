"""LEVERS that draw several completions of a prompt and choose one: what a completion-level value buys.

Best-of-N and the softmax policy are Q-Probe's (arXiv 2402.14688, section 4.1), the rejection sampler its section 4.2;
any `AnyReward` can be spent: a probe, a reward model, a verifier. The others are the nulls they must beat. Each is its
`steps` and, called with prompts and params, a `Decoder`. An unscored completion (NaN) is never chosen; when all are
unscored the choice is random (seeded) and the note says so. With n = 1 each is the plain sampler.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from trimtab.decoders.drive import drive
from trimtab.decoders.select import draw, expected_draws, rejection_probs, softmax_weights, vote_weights
from trimtab.errors import CapReached, InputError
from trimtab.types import (
    FREE,
    Answer,
    AnyReward,
    Ask,
    Completion,
    Group,
    Price,
    Prompt,
    Read,
    Reward,
    Sampler,
    SamplingParams,
    Steps,
    completion_seed,
)


@dataclass(frozen=True)
class Plain:
    """One completion a prompt, as the sampler draws it."""

    sampler: Sampler
    price: Price = FREE

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        group = yield Ask(self.sampler, prompt, 1, params, self.price)
        return answer(group, 0, group.rewards[0].note if group.rewards else "")  # a search inside a model says more

    __call__ = drive


@dataclass(frozen=True)
class Greedy:
    """One completion a prompt at temperature 0: the baseline to beat."""

    sampler: Sampler
    price: Price = FREE

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        return answer((yield Ask(self.sampler, prompt, 1, replace(params, temperature=0.0), self.price)), 0)

    __call__ = drive


@dataclass(frozen=True)
class BestOfN:
    """The completion of the highest reward among n."""

    sampler: Sampler
    reward: AnyReward
    n: int = 16
    price: Price = FREE

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        group = yield Ask(self.sampler, prompt, self.n, params, self.price)
        group = yield Read(self.reward, group)
        return choose(group, softmax_weights(group.reward_N, 0.0), params.seed)

    __call__ = drive


@dataclass(frozen=True)
class SoftmaxPolicy:
    """One of n completions drawn with softmax(reward / beta): the KL-regularised policy as n grows (theorem 4.1)."""

    sampler: Sampler
    reward: AnyReward
    n: int = 16
    beta: float = 0.1
    price: Price = FREE

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        group = yield Ask(self.sampler, prompt, self.n, params, self.price)
        group = yield Read(self.reward, group)
        return choose(group, softmax_weights(group.reward_N, self.beta), params.seed)

    __call__ = drive


@dataclass(frozen=True)
class Majority:
    """A completion that gives the answer most completions give (self-consistency, arXiv 2203.11171).

    `extract` finds the answer in a text, None when there is none: such a completion has no vote.
    """

    sampler: Sampler
    extract: Callable[[str], Hashable | None]
    n: int = 16
    price: Price = FREE

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        group = yield Ask(self.sampler, prompt, self.n, params, self.price)
        votes = vote_weights([None if c.failed else self.extract(c.text) for c in group.completions])
        return choose(group, votes, params.seed, "no completion gave an answer")

    __call__ = drive


@dataclass(frozen=True)
class LogprobRerank:
    """The completion the model itself finds likeliest: highest log-prob, by token ("mean") or in all ("sum").

    InputError when the sampler gives no log-probs.
    """

    sampler: Sampler
    n: int = 16
    normalise: Literal["mean", "sum"] = "mean"
    price: Price = FREE

    def __post_init__(self) -> None:
        if self.normalise not in ("mean", "sum"):
            raise InputError(f"LogprobRerank: normalise must be 'mean' or 'sum', got {self.normalise!r}")

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        group = yield Ask(self.sampler, prompt, self.n, params, self.price)
        there = [c for c in group.completions if not c.failed]
        if there and all(c.logprobs is None for c in there):
            raise InputError(
                f"LogprobRerank needs log-probs and the sampler of {self.sampler.model} gives none; "
                "samplers.HF and samplers.OpenVINO give them"
            )
        pick = np.mean if self.normalise == "mean" else np.sum
        value_N = [float(pick(c.logprobs)) if c.logprobs and not c.failed else math.nan for c in group.completions]
        return choose(group, softmax_weights(value_N, 0.0), params.seed)

    __call__ = drive


@dataclass(frozen=True)
class Longest:
    """The longest completion, in tokens, or in characters where the sampler counts none: the null of length bias."""

    sampler: Sampler
    n: int = 16
    price: Price = FREE

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        group = yield Ask(self.sampler, prompt, self.n, params, self.price)
        tokens = all(c.length is not None for c in group.completions if not c.failed)
        length_N = [math.nan if c.failed else (c.length or 0) if tokens else len(c.text) for c in group.completions]
        return choose(group, softmax_weights(length_N, 0.0), params.seed)

    __call__ = drive


@dataclass(frozen=True)
class RejectionSampler:
    """Draws until a completion is accepted, each with probability exp(reward / beta) / M: exact samples of
    p(a) exp(reward(a) / beta) / Z when M bounds exp(reward / beta), as the softmax policy gives only for n to infinity.

    Give `bound`, the highest reward there can be (1 for a verifier), or `M` itself. Without either M is the largest
    exp(reward / beta) of a first batch of `batch` draws, which are spent on nothing else: the samples are then *not*
    exact (what the batch missed is flattened) and the note says so. Draws come `batch` at a time, up to `max_draws` a
    prompt, the first batch included; if none is accepted the softmax policy over all draws chooses, which is not exact
    either. The note tells which draw was accepted, how many are expected, M / E[exp(reward / beta)], and how many
    exceeded M.
    """

    sampler: Sampler
    reward: AnyReward
    beta: float = 0.1
    M: float | None = None
    max_draws: int = 256
    batch: int = 16
    bound: float | None = None
    price: Price = FREE

    def __post_init__(self) -> None:
        rejection_probs([], self.beta, 0.0)  # refuses beta <= 0
        if self.M is not None and self.bound is not None:
            raise InputError("RejectionSampler: give `bound`, the highest reward, or M = exp(bound / beta), not both")
        if self.bound is not None and not math.isfinite(self.bound):
            raise InputError(f"RejectionSampler: bound must be a finite reward, got {self.bound}")
        if self.M is not None and not self.M > 0:
            raise InputError(f"RejectionSampler: M must be positive, got {self.M}")
        if not 1 <= self.batch <= self.max_draws:
            raise InputError(f"RejectionSampler: batch={self.batch} must be between 1 and max_draws={self.max_draws}")

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        draws = _Draws(prompt, rng_for(prompt, params.seed), self._given)
        batches = 0
        try:
            while draws.accepted is None and len(draws.completions) < self.max_draws:
                n = min(self.batch, self.max_draws - len(draws.completions))
                group = yield Ask(self.sampler, prompt, n, again(params, batches), self.price)
                draws.test((yield Read(self.reward, group)), self.beta)
                batches += 1
        except CapReached:
            if not draws.completions:
                raise
        return draws.answer(self.beta)

    __call__ = drive

    @property
    def _given(self) -> float | None:
        if self.bound is not None:
            return self.bound / self.beta
        return None if self.M is None else math.log(self.M)


@dataclass
class _Draws:
    """The draws of one prompt so far, and which of them was accepted."""

    prompt: Prompt
    rng: np.random.Generator
    log_m: float | None
    accepted: int | None = None
    pilot: int = 0
    completions: list[Completion] = field(default_factory=list)
    rewards: list[Reward] = field(default_factory=list)

    def test(self, group: Group, beta: float) -> None:
        """Adds a batch; with M known, accepts the first that passes, else M comes from this batch."""
        start = len(self.completions)
        self.completions += [replace(c, index=start + i) for i, c in enumerate(group.completions)]
        self.rewards += group.rewards
        if self.log_m is None:
            self.pilot = len(self.completions)
            finite = group.reward_N[np.isfinite(group.reward_N)]
            self.log_m = float(finite.max() / beta) if finite.size else None
            return
        passed = self.rng.random(len(group.completions)) < rejection_probs(group.reward_N, beta, self.log_m)
        if passed.any():
            self.accepted = start + int(passed.argmax())

    def answer(self, beta: float) -> Answer:
        """The accepted draw, or the softmax policy's choice among all."""
        group = Group(self.prompt, tuple(self.completions), tuple(self.rewards))
        if self.log_m is None:
            return choose(group, np.zeros(len(self.completions)), self.rng)
        tested = len(self.completions) - self.pilot
        above = int((group.reward_N / beta > self.log_m + 1e-9).sum())
        notes = [f"{expected_draws(group.reward_N, beta, self.log_m):.3g} draws expected"]
        if self.pilot:
            notes.append(f"M is the largest of {self.pilot} first draws, so the samples are not exact: give bound")
        if above:
            notes.append(f"{above} draws exceeded M, where the tilt is flattened")
        if self.accepted is None:
            notes.insert(0, f"none of {tested} draws accepted, chosen by the softmax policy")
            chosen = choose(group, softmax_weights(group.reward_N, beta), self.rng)
            return replace(chosen, note="; ".join(filter(None, [chosen.note, *notes])))
        notes.insert(0, f"accepted draw {self.accepted - self.pilot + 1}")
        return answer(group, self.accepted, "; ".join(notes))


def again(params: SamplingParams, times: int) -> SamplingParams:
    """The params of the next round of completions of a prompt: other seeds, so that none is drawn twice."""
    return replace(params, seed=completion_seed(params.seed, "round", times)) if times else params


def rng_for(prompt: Prompt, seed: int) -> np.random.Generator:
    """The generator of a prompt's choices: by the run's seed and the prompt, apart from its completions' seeds."""
    return np.random.default_rng(completion_seed(seed, prompt.id, -1))


def choose(
    group: Group,
    weights_N: npt.ArrayLike,
    rng: np.random.Generator | int,
    nothing: str = "all completions are unscored",
) -> Answer:
    """One completion drawn with these probabilities by a generator, or by a run's seed; all zero: any of them, and the
    note says `nothing`."""
    (possible,) = np.asarray(weights_N).nonzero()
    if len(possible) == 1:  # what draws nothing needs no generator
        return answer(group, int(possible[0]))
    rng = rng if isinstance(rng, np.random.Generator) else rng_for(group.prompt, rng)
    index = draw(weights_N, rng)
    if index is not None:
        return answer(group, index)
    if not group.completions:
        raise InputError(f"prompt {group.prompt.id!r} has no completions to choose from; n must be at least 1")
    there = [i for i, c in enumerate(group.completions) if not c.failed] or [*range(len(group.completions))]
    return answer(group, there[int(rng.integers(len(there)))], f"{nothing}; chosen at random")


def answer(group: Group, index: int, note: str = "") -> Answer:
    """The completion at `index`; the driver adds what it cost."""
    return Answer(group.completions[index], group, note=note)
