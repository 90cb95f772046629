"""A GROUP to cues: what can be said of each of its completions without a model, from log-probs, length and the others.

A cue is one number a completion, higher or lower is for the fit to find out. Agreement with the other completions of
the group is self-consistency (Wang et al., arXiv 2203.11171); `same` extracts the answer. Likeness, for long answers,
is the expected similarity of minimum Bayes risk decoding (Kumar and Byrne 2004). It runs no
program and sees no reward.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError, unknown
from trimtab.types import Completion, Group, Reward, RewardFn

Floats = npt.NDArray[np.float64]
Same = Callable[[str], Hashable | None]
"""A completion's text to what it has in common with those that say the same; None agrees with nothing."""


def mean_logprob(group: Group, same: Same) -> Floats:
    """Mean log-prob a token."""
    return np.array([np.mean(x) if len(x) else 0.0 for x in _logprobs(group)])


def sum_logprob(group: Group, same: Same) -> Floats:
    """Log-prob of the whole completion."""
    return np.array([np.sum(x) for x in _logprobs(group)])


def min_logprob(group: Group, same: Same) -> Floats:
    """The least likely token's log-prob: where the model was most surprised by itself."""
    return np.array([np.min(x) if len(x) else 0.0 for x in _logprobs(group)])


def length(group: Group, same: Same) -> Floats:
    """log(1 + length): in tokens where every completion of the group has them, else in characters."""
    known = [c.tokens if c.tokens is not None else c.logprobs for c in group.completions]
    if all(k is not None for k in known):
        return np.log1p([len(k) for k in known if k is not None])
    return np.log1p([len(c.text) for c in group.completions])


def agreement(group: Group, same: Same) -> Floats:
    """log of how many completions of the group say the same (itself included, so an answer of its own has 0)."""
    classes = same_class(group, same)
    return np.log(np.bincount(classes)[classes])


def likeness(group: Group, same: Same) -> Floats:
    """Mean F1 of word 1- to 3-grams with the other completions; 0 in a group of one."""
    grams = [_grams(c.text) for c in group.completions]
    totals = [sum(x.values()) for x in grams]
    n = len(grams)
    f1_NN = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            if totals[i] + totals[j]:
                small, large = sorted((grams[i], grams[j]), key=len)
                shared = sum(min(count, large[gram]) for gram, count in small.items() if gram in large)
                f1_NN[i, j] = f1_NN[j, i] = 2 * shared / (totals[i] + totals[j])
    return f1_NN.sum(1) / max(n - 1, 1)


CUES: dict[str, Callable[[Group, Same], Floats]] = {
    "mean_logprob": mean_logprob, "sum_logprob": sum_logprob, "min_logprob": min_logprob, "length": length,
    "agreement": agreement, "likeness": likeness,
}  # fmt: skip
LOGPROB_CUES = ("mean_logprob", "sum_logprob", "min_logprob")


def same_text(text: str) -> Hashable | None:
    """Completions say the same when they are equal but for white space; empty ones agree with nothing."""
    return " ".join(text.split()) or None


def same_class(group: Group, same: Same) -> npt.NDArray[np.int64]:
    """The class of each completion, numbered from 0; one that `same` gives None for is a class of its own."""
    keys = [same(c.text) for c in group.completions]
    marked = [("alone", i) if k is None else ("said", k) for i, k in enumerate(keys)]
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(k, len(number)) for k in marked], dtype=np.int64)


def cue_rows(
    groups: Sequence[Group], names: Sequence[str], same: Same, signals: Mapping[str, RewardFn] | None = None
) -> Floats:
    """The cues of all completions in order, each centred within its group, (R, len(names)).

    `signals` are further cues by name, the values of any reward; where one is unscored it says nothing (the group's
    mean). InputError for an unknown cue, or a log-prob cue where a completion has no log-probs (the prompt is named).
    """
    signals = signals or {}
    for name in names:
        if name not in CUES and name not in signals:
            raise unknown("cue", name, (*CUES, *signals))
    if not names or not groups:
        return np.zeros((sum(len(g.completions) for g in groups), len(names)))
    read = {n: signals[n](groups) for n in names if n in signals}
    blocks = []
    for i, g in enumerate(groups):
        columns = [_told(read[n][i]) if n in signals else CUES[n](g, same) for n in names]
        block = np.stack(columns, axis=1)
        blocks.append(block - block.mean(0) if len(block) else block)
    return np.concatenate(blocks)


def _told(rewards: Sequence[Reward]) -> Floats:
    value_N = np.array([r.value for r in rewards], dtype=float)
    told_N = np.isfinite(value_N)
    return np.where(told_N, value_N, value_N[told_N].mean() if told_N.any() else 0.0)


def have_logprobs(groups: Sequence[Group]) -> bool:
    """Whether every completion carries its tokens' log-probs."""
    return all(c.logprobs is not None for g in groups for c in g.completions)


def _logprobs(group: Group) -> list[Sequence[float]]:
    return [_own(group, c) for c in group.completions]


def _own(group: Group, completion: Completion) -> Sequence[float]:
    if completion.logprobs is None or not all(map(math.isfinite, completion.logprobs)):
        raise InputError(
            f"prompt {group.prompt.id!r}, completion {completion.index}: no finite log-probs, which a log-prob cue "
            "needs; take a sampler that gives them, lm.forward.completion_logprobs, or cues without them"
        )
    return completion.logprobs


def _grams(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+|[^\w\s]", text)[:1000]
    return Counter(tuple(words[i : i + k]) for k in (1, 2, 3) for i in range(len(words) - k + 1))
