"""A model and texts to the mean activation of every SAE feature, and to the tokens that excite a feature most.

What two policies' features differ in, and which features tell one set of prompts from another (the choice that FPO's
section 5.3 holds or frees). It judges nothing: `trimtab.evaluation.pages.features` puts intervals and pages on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trimtab.errors import InputError
from trimtab.learners.feature.check import family_mismatch
from trimtab.learners.feature.leash import pooled_features
from trimtab.learners.feature.sae import SAE
from trimtab.learners.feature.sae_files import RESIDUAL
from trimtab.learners.feature.states import Rows, laid_out, token_rows
from trimtab.lm.load import LM

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Snippet:
    """A token that excites a feature, with the text around it."""

    before: str
    token: str
    after: str
    value: float


@torch.no_grad()
def mean_features(lm: LM, sae: SAE, data: Sequence[Any], *, budget: int = 2048) -> Floats:
    """Mean activation of every feature over the completions of each item, every completion weighing the same, (P, F).

    `data` are pairs, groups or texts (a text is its own completion, less its first token); `lm` is the model whose
    hidden states are read, or a Policy's. InputError for data without tokens.
    """
    sae = _placed(sae, lm)
    rows = token_rows(lm.tokenizer, data)
    if not rows:
        raise InputError("no tokens to take features from: pass pairs, groups or texts of at least two tokens")
    out_PF = np.zeros((len(rows), sae.width), np.float32)
    layer = sae.layer or 0
    for batch, laid, states in laid_out(lm, rows, [layer], budget):
        pooled = iter(pooled_features(sae, states[layer], laid)[0].float().cpu().numpy())
        for i in batch:
            out_PF[i] = np.mean([next(pooled) for _ in rows[i][1]], axis=0)
    return out_PF


@torch.no_grad()
def top_snippets(
    lm: LM, sae: SAE, data: Sequence[Any], features: Sequence[int], *, count: int = 3, context: int = 8,
    budget: int = 2048,
) -> dict[int, list[Snippet]]:  # fmt: skip
    """The completions' tokens that excite each feature most, at most one a completion, `context` tokens around it."""
    sae = _placed(sae, lm)
    rows = token_rows(lm.tokenizer, data)
    ids = torch.as_tensor(list(features), dtype=torch.long)
    best: dict[int, list[tuple[float, int, int, int]]] = {int(f): [] for f in ids}
    layer = sae.layer or 0
    for batch, laid, states in laid_out(lm, rows, [layer], budget):
        values_XI = sae.encode(states[layer])[:, ids.to(states[layer].device)].float().cpu()
        owner_X = laid.owner_X.cpu()
        places = [(i, c) for i in batch for c in range(len(rows[i][1]))]
        for owner, (i, c) in enumerate(places):
            mine = values_XI[owner_X == owner]
            if not len(mine):
                continue
            value_I, at_I = mine.max(0)
            for f, value, at in zip(best, value_I.tolist(), at_I.tolist(), strict=True):
                if value > 0:
                    best[f] = sorted([*best[f], (value, i, c, at)], key=lambda x: -x[0])[:count]
    return {f: [_snippet(lm.tokenizer, rows, x, context) for x in found] for f, found in best.items()}


def contrast(lm: LM, sae: SAE, these: Sequence[Any], those: Sequence[Any], *, count: int = 50) -> list[int]:
    """Features that are stronger in `these` texts than in `those`, strongest contrast first.

    The contrast is Welch's t of the per-item means, so that a feature must be steadily stronger and not once. At most
    `count`, and only those with t > 2.
    """
    a_PF, b_PF = mean_features(lm, sae, these).astype(np.float64), mean_features(lm, sae, those).astype(np.float64)
    if len(a_PF) < 2 or len(b_PF) < 2:
        raise InputError("a contrast needs at least two texts on either side")
    error_F = np.sqrt(a_PF.var(0, ddof=1) / len(a_PF) + b_PF.var(0, ddof=1) / len(b_PF))
    gap_F = a_PF.mean(0) - b_PF.mean(0)
    t_F = np.divide(gap_F, error_F, out=np.where(gap_F > 0, np.inf, 0.0), where=error_F > 0)
    order = np.argsort(-t_F, kind="stable")[:count]
    return [int(f) for f in order if t_F[f] > 2]


def feature_scale(lm: LM, sae: SAE, data: Sequence[Any], *, k: int = 50) -> float:
    """Mean square of the k strongest features of each item, the natural unit of a leash's D.

    D is in squared units of the SAE's features, which differ by orders of magnitude between models and dictionaries.
    `alpha / feature_scale(...)` is an alpha that means the same for all of them.
    """
    square_PF = mean_features(lm, sae, data).astype(np.float64) ** 2
    return float(np.sort(square_PF, axis=1)[:, -min(k, sae.width) :].mean())


def _placed(sae: SAE, lm: LM) -> SAE:
    if sae.layer is None:
        raise InputError("the SAE's files do not say its layer: load it with layer=")
    size = lm.model.config.get_text_config().hidden_size
    if sae.site not in ("", RESIDUAL) or sae.inputs != size:
        raise InputError(
            f"the SAE reads {sae.inputs} numbers of {sae.site or RESIDUAL!r}; the model's stream has {size}"
        )
    if (wrong := family_mismatch(sae.model, lm.model.config)) is not None:
        raise InputError(f"the SAE does not fit: {wrong}")
    return sae.to(next(lm.model.parameters()).device)


def _snippet(tokenizer: Any, rows: Rows, found: tuple[float, int, int, int], context: int) -> Snippet:
    value, i, c, at = found
    prompt, completion = rows[i][0], rows[i][1][c]
    tokens, place = [*prompt, *completion], len(prompt) + at
    pieces = (
        tokens[max(0, place - context) : place],
        tokens[place : place + 1],
        tokens[place + 1 : place + 1 + context],
    )
    before, token, after = (tokenizer.decode(p) for p in pieces)
    return Snippet(before, token, after, value)
