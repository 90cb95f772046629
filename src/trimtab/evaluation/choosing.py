"""Groups to strategies: each gives the probability with which every completion of a chunk would be taken.

The nulls that a learned ranking must beat (longest, mean and sum log-prob, majority vote), and the rankings themselves,
by argmax or softmax(value/β). One that cannot be had (no log-probs, no extractor) is left out with a note, never
filled with zeros. It does not score completions and knows no intervals.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trimtab.decoders.select import softmax_weights, vote_weights
from trimtab.errors import InputError
from trimtab.evaluation.metrics import Expected, chosen_reward, chunks
from trimtab.types import Completion, Group, completion_seed

Values = Sequence[npt.ArrayLike]
"""One value a completion, one row a group: what a ranking gives."""
NO_EXTRACTOR = "majority vote is left out: no answer extractor was given"
Extract = Callable[[str], Hashable | None]
"""A completion's text to the answer it votes for, None when it holds none."""


@dataclass(frozen=True)
class ByValue:
    """Takes the completion of the highest value (β = 0, ties shared evenly) or by softmax(value/β)."""

    name: str
    values: Sequence[npt.NDArray[np.float64]] = field(repr=False)
    beta: float = 0.0

    def __call__(self, p: int, index_CN: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Weights of the chunks of prompt number p, shape of `index_CN`."""
        return softmax_weights(self.values[p][index_CN], self.beta)


@dataclass(frozen=True)
class ByVote:
    """Takes a completion of the most frequent answer, evenly within it and among tied answers.

    A completion without an answer (None) neither votes nor is taken; where none has one, the choice is even over all.
    """

    name: str
    answers: Sequence[Sequence[Hashable | None]] = field(repr=False)

    def __call__(self, p: int, index_CN: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Weights of the chunks of prompt number p, shape of `index_CN`."""
        weight_CN = np.array([vote_weights([self.answers[p][i] for i in chunk]) for chunk in index_CN])
        weight_CN[weight_CN.sum(axis=1) == 0] = 1 / index_CN.shape[1]
        return weight_CN


Strategy = ByValue | ByVote


def token_count(completion: Completion) -> float:
    """Generated tokens that are paid for, NaN when the engine counted none."""
    paid = completion.paid_tokens
    return math.nan if paid is None else float(paid)


def mean_tokens(groups: Sequence[Group]) -> float:
    """Mean over prompts of the tokens a completion takes; completions that failed are not counted."""
    there = [[token_count(c) for c in g.completions if not c.failed] for g in groups]
    return float(np.mean([np.mean(row) for row in there if row])) if any(there) else math.nan


def lengths(groups: Sequence[Group]) -> tuple[list[npt.NDArray[np.float64]], str]:
    """Lengths of all completions and their unit: "tokens", or "characters" where any token count is unknown. NaN for
    those that failed."""
    known = all(c.length is not None for g in groups for c in g.completions if not c.failed)

    def size(c: Completion) -> float:
        return math.nan if c.failed else float((c.length or 0) if known else len(c.text))

    return [np.array([size(c) for c in g.completions]) for g in groups], "tokens" if known else "characters"


def logprob_values(groups: Sequence[Group], *, mean: bool) -> list[npt.NDArray[np.float64]] | None:
    """Mean or summed log-prob of every completion, NaN where a completion has none; None when not one has any."""
    pick = np.mean if mean else np.sum
    values = [
        np.array([float(pick(c.logprobs)) if c.logprobs and not c.failed else math.nan for c in g.completions])
        for g in groups
    ]
    return values if any(np.isfinite(v).any() for v in values) else None


def aligned(groups: Sequence[Group], name: str, values: Values) -> list[npt.NDArray[np.float64]]:
    """`values` as arrays, one number a completion, NaN for one that failed. InputError names the ranking and the prompt
    that do not fit."""
    arrays = [np.asarray(v, float) for v in values]
    if len(arrays) != len(groups):
        raise InputError(f"ranking {name!r} has values for {len(arrays)} prompts, there are {len(groups)}")
    for g, v in zip(groups, arrays, strict=True):
        n = len(g.completions)
        if v.shape != (n,):
            raise InputError(f"ranking {name!r}, prompt {g.prompt.id}: values of shape {v.shape} for {n} completions")
    failed = [np.array([c.failed for c in g.completions], bool) for g in groups]
    return [np.where(f, math.nan, v) for f, v in zip(failed, arrays, strict=True)]


def strategies(
    groups: Sequence[Group], rankers: Mapping[str, Values], *, beta: float = 0.1, soft: Sequence[str] | None = None,
    extract: Extract | None = None,
) -> tuple[list[Strategy], list[str]]:  # fmt: skip
    """The nulls, every ranking by argmax, the rankings named in `soft` (default: all) by softmax(value/β); and notes on
    what is left out. InputError for a name in `soft` that is no ranking, or values that do not fit the groups."""
    length, unit = lengths(groups)
    out: list[Strategy] = [ByValue("longest", length)]
    notes = [] if unit == "tokens" else ["longest is by characters: token counts are unknown"]
    for name, mean in (("mean log-prob", True), ("sum log-prob", False)):
        values = logprob_values(groups, mean=mean)
        if values is None:
            notes.append(f"{name} is left out: the sampler gave no log-probs")
            continue
        out.append(ByValue(name, values))
        missing = sum(int(np.isnan(v).sum()) for v in values)
        if missing:
            notes.append(f"{name}: {missing} completions have no log-probs and are never chosen")
    vote, note = _vote(groups, extract)
    out += [vote] if vote else []
    notes += [note] if note else []
    values_of = {name: aligned(groups, name, values) for name, values in rankers.items()}
    out += [ByValue(name, values) for name, values in values_of.items()]
    for name in rankers if soft is None else soft:
        if name not in values_of:
            raise InputError(f"soft names {name!r}, which is no ranking; rankings: {', '.join(rankers) or '(none)'}")
        out.append(ByValue(f"{name}, softmax β={beta:g}", values_of[name], beta))
    return out, notes


def _vote(groups: Sequence[Group], extract: Extract | None) -> tuple[ByVote | None, str]:
    """Majority vote, and what a reader of its row must know: an even choice over all is no vote."""
    if extract is None:
        return None, NO_EXTRACTOR
    answers = [[None if c.failed else extract(c.text) for c in g.completions] for g in groups]
    silent = sum(a is None for row in answers for a in row)
    total, mute = sum(map(len, answers)), sum(all(a is None for a in row) for row in answers)
    if silent == total:
        return None, (
            f"majority vote is left out: the extractor found no answer in any of {total} completions; "
            "name one that fits them"
        )
    note = f"majority vote: no answer was found in {silent} of {total} completions" if silent else ""
    note += f"; {mute} prompts have none at all and are chosen evenly" if mute else ""
    return ByVote("majority vote", answers), note


def check_groups(groups: Sequence[Group], k: int | None) -> int:
    """The k to choose among, by default the smallest group's size. InputError when there is nothing to evaluate: no
    groups, not one reward, a group smaller than k, a prompt twice."""
    if not groups:
        raise InputError("there are no groups to evaluate; sample and score some prompts first")
    smallest = min(groups, key=lambda g: len(g.completions))
    wanted = len(smallest.completions) if k is None else k
    if not 1 <= wanted <= len(smallest.completions):
        raise InputError(
            f"k = {wanted}, but prompt {smallest.prompt.id} has {len(smallest.completions)} completions; "
            "k must be between 1 and that, or sample more"
        )
    if len({g.prompt.id for g in groups}) < len(groups):
        twice = Counter(g.prompt.id for g in groups).most_common(1)[0][0]
        raise InputError(f"prompt {twice} has more than one group; intervals over prompts need one group a prompt")
    if not any(np.isfinite(g.reward_N).any() for g in groups):
        notes = Counter(r.note for g in groups for r in g.rewards if r.note)
        why = f" (most often: {notes.most_common(1)[0][0]})" if notes else "; score the groups first"
        raise InputError(f"not one completion has a reward{why}; unscored is not zero")
    return wanted


def chunk_index(groups: Sequence[Group], k: int, permutations: int, seed: int) -> list[npt.NDArray[np.intp]]:
    """The chunks of k of every group: they depend on the seed and the prompt's id, not on the order of the groups."""
    rngs = (np.random.default_rng(completion_seed(seed, g.prompt.id)) for g in groups)
    return [chunks(len(g.completions), k, rng, permutations) for g, rng in zip(groups, rngs, strict=True)]


def rewards_of(strategy: Strategy, groups: Sequence[Group], index_P: Sequence[npt.NDArray[np.intp]]) -> list[Expected]:
    """The expected reward of a strategy on every group, over the given chunks."""
    return [
        chosen_reward(strategy(p, index), g.reward_N[index])
        for p, (g, index) in enumerate(zip(groups, index_P, strict=True))
    ]


def choices(groups: Sequence[Group], strategies: Sequence[Strategy]) -> dict[str, list[tuple[int, ...]]]:
    """Which completions each strategy would take of the whole group: indices tied at the highest probability, a tuple a
    group, empty where it can choose nothing."""
    picked: dict[str, list[tuple[int, ...]]] = {}
    for strategy in strategies:
        picked[strategy.name] = []
        for p, g in enumerate(groups):
            weight = strategy(p, np.arange(len(g.completions))[None])[0]
            top = weight.max(initial=0.0)
            ties = tuple(np.flatnonzero(weight >= top - 1e-12).tolist()) if top > 0 else ()
            picked[strategy.name].append(ties)
    return picked
