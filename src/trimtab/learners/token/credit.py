"""A policy and its reference to credit: what each token of a completion is worth, β (log π − log π_ref).

"From r to Q*" (arXiv 2404.12358, eq. 10): β log π*/π_ref = r(s, a) + V*(s') − V*(s), the optimal *advantage* A.
Its running sum is V*(s_t) − V*(s₀) + the rewards so far: the V view, where the completion is headed.
Caveat: only the advantage is identified. Rewards can be moved between a prefix's tokens by any potential without
changing it, so a token's credit is not "its reward"; a late token may be praised for what an early one made likely.
The sum over a completion that ended is the implicit reward. It says nothing about why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.learners.token.policy import Policy
from trimtab.types import Group

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Credit:
    """Credit of one completion's tokens; `pieces` are their texts, which join to the completion."""

    prompt_id: str
    index: int
    pieces: tuple[str, ...]
    logprobs: tuple[float, ...]
    ref_logprobs: tuple[float, ...]
    beta: float
    ended: bool

    @property
    def advantage_T(self) -> Floats:
        """β (log π − log π_ref) of each token, in reward units: the A view."""
        return self.beta * (np.array(self.logprobs) - np.array(self.ref_logprobs))

    @property
    def value_T(self) -> Floats:
        """Running sum of the advantages, V*(after token t) − V*(start) when the reward comes at the end: the V view."""
        return np.cumsum(self.advantage_T)

    @property
    def reward(self) -> float:
        """The implicit reward, the sum of the advantages (a partial return when the completion was cut)."""
        return float(self.advantage_T.sum())


def token_credit(
    groups: Sequence[Group], policy: Policy, reference: Policy, *, beta: float = 0.1
) -> list[list[Credit]]:
    """Credit of every completion of every group. Both models must tokenise alike (the policy's tokenizer is used)."""
    ours, theirs = policy.logprobs(groups), reference.logprobs(groups)
    out = []
    for g, a_group, b_group in zip(groups, ours, theirs, strict=True):
        _, encoded = policy.encode(g)
        out.append(
            [
                Credit(
                    g.prompt.id, c.index, pieces_of(policy.lm.tokenizer, ids), tuple(map(float, a)),
                    tuple(map(float, b)), beta, c.finish == "stop",
                )
                for c, ids, a, b in zip(g.completions, encoded, a_group, b_group, strict=True)
            ]
        )  # fmt: skip
    return out


def pieces_of(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """The text of each token such that the pieces join to the decoded text; a character that several tokens make up
    stands at the last of them, special tokens show their names."""
    pieces: list[str] = []
    start, shown, unfinished = 0, "", 0
    for t in range(len(ids)):
        text = tokenizer.decode(list(ids[start : t + 1]), skip_special_tokens=False)
        if text.endswith("\ufffd") and t + 1 < len(ids) and unfinished < 4:  # a character of several tokens
            pieces.append("")
            unfinished += 1
            continue
        pieces.append(text[len(shown) :])
        shown, unfinished = text, 0
        alone = tokenizer.decode([ids[t]], skip_special_tokens=False)
        if t - start >= 16 and "\ufffd" not in alone:  # decoding from the beginning each time would be quadratic
            start, shown = t, alone
    return tuple(pieces)


def auroc(values: npt.ArrayLike, planted: npt.ArrayLike) -> float:
    """Probability that a planted token (True) has a higher value than another, ties half; NaN without both kinds."""
    value_X, planted_X = np.asarray(values, dtype=float), np.asarray(planted, dtype=bool)
    n, m = int(planted_X.sum()), int((~planted_X).sum())
    if not n or not m:
        return float("nan")
    _, inverse, counts = np.unique(value_X, return_inverse=True, return_counts=True)
    rank_X = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((rank_X[planted_X].sum() - n * (n + 1) / 2) / (n * m))
