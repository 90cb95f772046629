"""COMPLETIONS and POLICIES to how various and how far from the reference they are.

Of texts alone: distinct-n (Li et al. 2016, arXiv 1510.03055), self-BLEU (Zhu et al. 2018, arXiv 1802.01886) and, with
an embedder, the spread of embeddings. Of distributions: the entropy of the next token (of the whole vocabulary, or of
its top k as FPO measures it) and KL(policy ‖ reference), at the states that the completions visit. It does not sample.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trimtab.learners.token.policy import Policy
from trimtab.lm.forward import encode_branches, head_of, hidden_at
from trimtab.lm.tree import lay_out, length_buckets
from trimtab.tensors import linear_entropy, linear_forward_kl
from trimtab.types import Group

Floats = npt.NDArray[np.float64]


def words(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks, the unit of distinct-n and self-BLEU."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Distinct n-grams over all n-grams of the texts together, in (0, 1]; NaN when no text has n words."""
    grams = Counter(g for t in texts for g in _ngrams(words(t), n))
    return len(grams) / total if (total := sum(grams.values())) else math.nan


def self_bleu(texts: Sequence[str], n: int = 4) -> float:
    """Mean BLEU-n of each text against the others, in [0, 1]: 1 = all the same. NaN for fewer than two texts.

    Orders up to n weigh the same; add-one smoothing above order 1, brevity penalty against the nearest length (Lin
    and Och 2004). A text without words is left out.
    """
    tokens = [w for t in texts if (w := words(t))]
    if len(tokens) < 2:
        return math.nan
    return float(np.mean([_bleu(t, tokens[:i] + tokens[i + 1 :], n) for i, t in enumerate(tokens)]))


def spread(vectors_ND: npt.NDArray[Any]) -> float:
    """Mean cosine distance between the rows of one group's embeddings, in [0, 2]; NaN for fewer than two rows."""
    if len(vectors_ND) < 2:
        return math.nan
    unit = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    cosine = unit @ unit.T
    return float(1 - cosine[np.triu_indices(len(unit), 1)].mean())


@dataclass(frozen=True)
class Diversity:
    """Measures of a policy's completions, one number a prompt (NaN where a group is too small), shape (P,)."""

    distinct_1: Floats
    distinct_2: Floats
    self_bleu: Floats
    entropy: Floats
    """Nats a token, mean over the group's tokens."""
    kl: Floats
    """KL(policy ‖ reference) in nats a token; NaN without a reference."""

    def plain(self) -> dict[str, float]:
        """Means over prompts."""
        return {k: float(np.nanmean(v)) if np.isfinite(v).any() else math.nan for k, v in vars(self).items()}


def diversity(
    groups: Sequence[Group], policy: Policy | None = None, reference: Policy | None = None, *, top: int = 0
) -> Diversity:
    """How various `groups` (a policy's own samples) are; entropy with `policy`, KL with `reference` as well.

    `top` > 0 takes the entropy of the renormalised top tokens (FPO reports 100).
    """
    texts = [[c.text for c in g.completions if not c.failed] for g in groups]
    entropy, kl = np.full((2, len(groups)), np.nan)
    if policy is not None:
        entropy, kl = next_token_measures(groups, policy, reference, top=top)
    return Diversity(
        np.array([distinct(t, 1) for t in texts]), np.array([distinct(t, 2) for t in texts]),
        np.array([self_bleu(t) for t in texts]), entropy, kl,
    )  # fmt: skip


@torch.no_grad()
def next_token_measures(
    groups: Sequence[Group], policy: Policy, reference: Policy | None = None, *, top: int = 0
) -> tuple[Floats, Floats]:
    """Mean next-token entropy and KL(policy ‖ reference) over the tokens of each group, in nats, shapes (P,)."""
    rows = encode_branches(policy.lm, groups)
    entropy, kl = np.full((2, len(groups)), np.nan)
    sizes = [len(p) + sum(map(len, cs)) for p, cs in rows]
    model = policy.lm.model
    for batch in length_buckets(sizes, policy.budget):
        laid = lay_out([rows[i][0] for i in batch], [rows[i][1] for i in batch], share_prompt=policy.share_prompt)
        laid = laid.to(next(model.parameters()).device)
        hidden_XD, head = hidden_at(model, laid), head_of(model)
        found = [linear_entropy(hidden_XD, head, top=top)]
        if reference is not None:
            ref = reference.lm.model
            found.append(linear_forward_kl(hidden_at(ref, laid), head_of(ref), hidden_XD, head))
        owner = np.repeat(batch, [len(rows[i][1]) for i in batch])[laid.owner_X.cpu().numpy()]
        for out, values in zip((entropy, kl), found, strict=False):
            array = values.double().cpu().numpy()
            for i in batch:
                if (mine := owner == i).any():
                    out[i] = array[mine].mean()
    return entropy, kl


def _ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _bleu(tokens: Sequence[str], others: Sequence[Sequence[str]], n: int) -> float:
    logs = 0.0
    for order in range(1, n + 1):
        mine = Counter(_ngrams(tokens, order))
        most: Counter[tuple[str, ...]] = Counter()
        for o in others:
            most |= Counter(_ngrams(o, order))
        hits, total, extra = sum((mine & most).values()), sum(mine.values()), int(order > 1)
        if hits + extra == 0:
            return 0.0
        logs += math.log((hits + extra) / (total + extra)) / n
    nearest = min((len(o) for o in others), key=lambda m: (abs(m - len(tokens)), m))
    return math.exp(logs + min(0.0, 1 - nearest / len(tokens)))
