"""A router's expected rewards, prices and a budget to the model that answers each prompt. Torch-free.

The router knows rewards, this file knows money: utility = reward - exchange · price (RouterBench's willingness to pay,
inverted). `Routed` sends each prompt to one model, `Ranked` lets every model answer and keeps the best by any reward
function (Zooter's reward-model ranking, RMR). It learns nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trimtab.decoders.completion import answer
from trimtab.decoders.drive import drive
from trimtab.errors import InputError, ModelError
from trimtab.types import (
    AnyReward,
    Ask,
    Completion,
    Group,
    Price,
    Prompt,
    Read,
    Reward,
    RewardFn,
    Router,
    Sampler,
    SamplingParams,
    Steps,
)

Array = npt.NDArray[np.float64]


def utility(reward_PM: npt.ArrayLike, price_M: npt.ArrayLike, exchange: float = 0.0) -> Array:
    """reward - exchange · price, shape (P, M). `exchange`: rewards a US dollar is worth; `price_M` or (P, M): dollars
    a call. NaN rewards stay NaN. InputError for a negative exchange or price, or an unknown price when it matters."""
    price = np.asarray(price_M, float)
    if exchange < 0 or (price < 0).any():
        raise InputError("exchange and prices must not be negative")
    if exchange == 0:
        return np.asarray(reward_PM, float)
    if np.isnan(price).any():
        raise InputError("a model has no price, so a budget cannot be kept; give every model of the pool a price")
    return np.asarray(reward_PM, float) - exchange * price


def choose(value_PM: npt.ArrayLike, share_M: npt.ArrayLike | None = None) -> npt.NDArray[np.intp]:
    """The column each prompt goes to, shape (P,): its highest value; NaN is never chosen, ties go to the first.

    `share_M` caps each model's share of these prompts: prompts with most to lose choose first, the others take their
    best model that still has room. InputError when a prompt has no value at all or the caps leave no room for all.
    """
    value = np.where(np.isnan(np.asarray(value_PM, float)), -np.inf, np.asarray(value_PM, float))
    if len(value) and np.isinf(value).all(1).any():
        raise InputError(f"prompt {int(np.isinf(value).all(1).argmax())} has no value for any model (all NaN)")
    if share_M is None or not len(value):
        return value.argmax(1)
    room = np.floor(np.asarray(share_M, float) * len(value) + 1e-9).astype(int)
    if room.sum() < len(value):
        raise InputError(f"the caps leave room for {int(room.sum())} of {len(value)} prompts; raise a model's share")
    top = np.sort(value, axis=1)
    regret = top[:, -1] - top[:, -2] if value.shape[1] > 1 else top[:, -1]
    out = np.zeros(len(value), np.intp)
    for p in np.argsort(-np.nan_to_num(regret, posinf=np.inf), kind="stable"):
        out[p] = int(np.where(room > 0, value[p], -np.inf).argmax())
        room[out[p]] -= 1
    return out


def exchange_for(reward_PM: npt.ArrayLike, price_PM: npt.ArrayLike, budget: float, rounds: int = 60) -> float:
    """The smallest exchange rate at which routing costs at most `budget` dollars a prompt, on validation values.

    Cost falls with the rate, so bisection finds it. InputError when even the cheapest model costs more.
    """
    reward, price = np.asarray(reward_PM, float), np.broadcast_to(price_PM, np.shape(reward_PM)).astype(float)

    def cost(rate: float) -> float:
        at = choose(utility(reward, price, rate))
        return float(price[np.arange(len(price)), at].mean())

    low, high = 0.0, 1.0
    if cost(low) <= budget:
        return low
    while cost(high) > budget:
        high *= 4
        if high > 1e18:
            raise InputError(f"even the cheapest models cost more than {budget:g} dollars a prompt; raise the budget")
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= budget else (middle, high)
    return high


def exchange_for_quality(reward_PM: npt.ArrayLike, price_PM: npt.ArrayLike, least: float, rounds: int = 60) -> float:
    """The largest exchange rate at which the mean expected reward is still `least`: the cheapest routing of a quality.

    On validation values; the expected reward falls with the rate, so bisection finds it. InputError when even routing
    without regard to prices does not reach it.
    """
    reward, price = np.asarray(reward_PM, float), np.broadcast_to(price_PM, np.shape(reward_PM)).astype(float)

    def quality(rate: float) -> float:
        at = choose(utility(reward, price, rate))
        return float(reward[np.arange(len(reward)), at].mean())

    if quality(0.0) < least:
        raise InputError(f"routing reaches an expected reward of {quality(0.0):g} at any price; {least:g} was asked")
    low, high = 0.0, 1.0
    while quality(high) >= least:
        low, high = high, 4 * high
        if high > 1e18:
            return low  # even the cheapest models reach it
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if quality(middle) >= least else (low, middle)
    return low


def threshold_for(gain_P: npt.ArrayLike, share: float) -> float:
    """RouteLLM's calibrated threshold: the expected gain from which on a call goes to the strong model, so that `share`
    of the validation prompts does (at most: equal gains stay together). InputError unless 0 <= share <= 1."""
    gain = np.sort(np.asarray(gain_P, float))[::-1]
    if not 0 <= share <= 1 or not len(gain) or np.isnan(gain).any():
        raise InputError(f"a threshold needs a share between 0 and 1 (got {share}) and validation gains without NaN")
    calls = int(np.floor(share * len(gain) + 1e-9))
    if calls == len(gain):
        return float(gain[-1])
    strict = gain[gain > gain[calls]]  # those equal to the first one left out are left out, too
    return float(strict[-1]) if len(strict) else float(np.nextafter(gain[0], np.inf))


@dataclass(frozen=True)
class Routed:
    """Each prompt goes to the model of the pool with the highest utility, which answers it once.

    `prices` are dollars a call; `exchange` rewards a dollar; `shares` cap models' shares of the prompts of a call (1
    where none is given). ModelError when router and pool name different models.
    """

    router: Router
    pool: Mapping[str, Sampler]
    prices: Mapping[str, float] = field(default_factory=dict)
    exchange: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        unwritten = Group(prompt, tuple(Completion("", m, 0, i) for i, m in enumerate(self.pool)))
        model = list(self.pool)[int(np.nanargmax((yield Read(self._chosen, unwritten)).reward_N))]
        price = Price(call=self.prices.get(model, 0.0))
        return answer((yield Ask(self.pool[model], prompt, 1, params, price)), 0, f"routed to {model}")

    __call__ = drive

    @cached_property
    def _chosen(self) -> RewardFn:
        return self._choose  # one object, so that all prompts are read together

    def _choose(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """Completions that nobody has written to their expected rewards, NaN but for the model each prompt goes to."""
        rewards, names = self.router([g.prompt for g in groups]), list(self.pool)
        for row in rewards:
            if set(row) != set(names):
                odd = ", ".join(sorted(set(row) ^ set(names)))
                raise ModelError(f"router and pool name different models ({odd}); fit a router on this pool")
        value = np.array([[row[m] for m in names] for row in rewards])
        price = np.array([self.prices.get(m, np.nan if self.exchange else 0.0) for m in names])
        if odd := sorted(set(self.shares) - set(names)):
            raise ModelError(f"a share is given to {', '.join(odd)}, which the pool does not have: {', '.join(names)}")
        caps = [self.shares.get(m, 1.0) for m in names] if self.shares else None
        chosen = choose(utility(value, price, self.exchange), caps)
        return [
            [Reward(row[m]) if i == at else Reward(math.nan, "another model answers") for i, m in enumerate(names)]
            for row, at in zip(rewards, chosen, strict=True)
        ]


@dataclass(frozen=True)
class Ranked:
    """Every model of the pool answers once, the best by `reward` is kept (RMR), all are paid for.

    NaN is never chosen; where nothing could be scored the first model's answer is returned and the note says so.
    """

    pool: Mapping[str, Sampler]
    reward: AnyReward
    prices: Mapping[str, float] = field(default_factory=dict)

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps:
        completions = []
        for name, sampler in self.pool.items():
            group = yield Ask(sampler, prompt, 1, params, Price(call=self.prices.get(name, 0.0)))
            completions.append(group.completions[0])
        group = yield Read(self.reward, Group(prompt, tuple(completions)))
        if np.isnan(group.reward_N).all():
            first = next((i for i, c in enumerate(completions) if not c.failed), 0)
            return answer(group, first, "nothing could be scored; the first model's answer")
        return answer(group, int(np.nanargmax(group.reward_N)), "best of the pool")

    __call__ = drive
