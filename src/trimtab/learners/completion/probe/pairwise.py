"""PAIRS and an Embedder to a PairwiseProbe: P(first is preferred over second) from both embeddings; a `Preference`.

West-of-N's teacher (arXiv 2401.12086) sees both completions at once and need not be transitive. logit(i, j) =
w·(phi_i - phi_j) + net(phi_i, phi_j) - net(phi_j, phi_i): swapping the two flips its sign exactly, so there is no
position bias to cancel. Without a net it is a Bradley-Terry probe. It runs no tournament and builds no pairs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError, ModelError
from trimtab.fitted import load_fitted, save_fitted
from trimtab.json_file import Kinds
from trimtab.learners.completion.probe.data import embed_rows, fold_of_prompt, groups_of_pairs, scored
from trimtab.learners.completion.probe.probe import check_card
from trimtab.types import Embedder, Group, Pair, canonical_json
from trimtab.version import __version__

Floats = npt.NDArray[np.float64]
FILE, CARD, KIND = "pairwise.safetensors", "card.json", "pairwise_probe"
_NEEDS: Kinds = {"embedder": dict}


@dataclass(frozen=True, eq=False)
class PairwiseProbe:
    """A preference between two completions from their embeddings; `card` says what it must be used with.

    `weights`: mean_D, scale_D (standardisation), linear_D, and with a net first_HD, second_HD (on the first and second
    completion's embedding), bias_H, out_H.
    """

    weights: Mapping[str, npt.NDArray[np.float32]]
    card: Mapping[str, Any]
    embed: Embedder | None = None
    weights_hash: str = field(default="", init=False)
    pairwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        digest = hashlib.sha256(b"".join(self.weights[k].astype("<f4").tobytes() for k in sorted(self.weights)))
        object.__setattr__(self, "weights_hash", digest.hexdigest()[:32])

    def __repr__(self) -> str:
        return f"PairwiseProbe(weights={self.weights_hash!r}, embedder={self.card['embedder']!r})"

    def logits(self, features_ND: npt.NDArray[Any], pairs_M2: npt.NDArray[np.intp]) -> Floats:
        """Log-odds that the first of each pair of rows is preferred, shape (M,), in float64."""
        w = {k: v.astype(np.float64) for k, v in self.weights.items()}
        x_ND = (features_ND.astype(np.float64) - w["mean_D"]) * w["scale_D"]
        i_M, j_M = np.asarray(pairs_M2, dtype=np.intp).reshape(-1, 2).T
        value_N = x_ND @ w["linear_D"]
        logit_M = value_N[i_M] - value_N[j_M]
        if "out_H" not in w:
            return logit_M
        first_NH, second_NH = x_ND @ w["first_HD"].T, x_ND @ w["second_HD"].T + w["bias_H"]
        for at in range(0, len(i_M), 4096):
            i, j = i_M[at : at + 4096], j_M[at : at + 4096]
            net = np.maximum(first_NH[i] + second_NH[j], 0) - np.maximum(first_NH[j] + second_NH[i], 0)
            logit_M[at : at + 4096] += net @ w["out_H"]
        return logit_M

    def __call__(self, groups: Sequence[Group], asked: Sequence[npt.NDArray[np.intp]]) -> list[Floats]:
        """P(first is preferred) of every pair asked. ModelError without an embedder or with another than the card's."""
        if self.embed is None:
            raise ModelError("this pairwise probe has no embedder: give one, PairwiseProbe.load(folder, embed)")
        check_card(self.card["embedder"], self.embed.card)
        if not groups:
            return []
        vectors = self.embed(groups)
        return [
            1 / (1 + np.exp(-np.clip(self.logits(np.asarray(x), p), -700, 700)))
            for x, p in zip(vectors, asked, strict=True)
        ]

    def save(self, folder: str | Path) -> Path:
        """Writes pairwise.safetensors and card.json into `folder` (made if needed); returns it."""
        weights = {k: np.asarray(v, dtype=np.float32) for k, v in self.weights.items()}
        return save_fitted(Path(folder), weights, self.card, FILE, CARD)

    @classmethod
    def load(cls, folder: str | Path, embed: Embedder | None = None) -> "PairwiseProbe":
        """The probe of `folder`. InputError when files are missing or broken; ModelError for another embedder."""
        card, weights = load_fitted(Path(folder), FILE, CARD, what="pairwise probe", kind=KIND, needs=_NEEDS)
        if "linear_D" not in weights:
            raise InputError(f"{folder} holds no readable pairwise probe: it has no linear_D; fit it again")
        if embed is not None:
            check_card(card["embedder"], embed.card)
        return cls(weights, card, embed)


def fit_pairwise(
    pairs: Sequence[Pair], embed: Embedder, *, hidden: int = 64, l2: float = 0.1, lr: float = 3e-3, steps: int = 400,
    patience: int = 20, seed: int = 0,
) -> PairwiseProbe:  # fmt: skip
    """Fit a pairwise probe to preferences by mean -log sigmoid(logit(chosen, rejected)) with AdamW, weight decay `l2`.

    `hidden` units in the net, 0 for none. Full batches of standardised embeddings; a fifth of the prompts decides when
    to stop (`patience` checks of ten steps without a lower loss). Same pairs and seed, same weights, in any order.
    InputError for no pairs or a single prompt.
    """
    if not pairs:
        raise InputError("no pairs: nothing can be learnt; make some, or check the filter that made these")
    groups, rows_of = groups_of_pairs(pairs)
    kept, counts = scored(groups)
    if len(kept) < 2:
        raise InputError("one training prompt: what holds for other prompts cannot be learnt; give at least two")
    X_RD = embed_rows(kept, embed(kept)).astype(np.float32)
    prompt_R = np.repeat(np.arange(len(kept)), [len(g.completions) for g in kept])
    pairs_B2 = rows_of(kept)
    pairs_B2 = pairs_B2[np.lexsort(pairs_B2.T)]
    held_P = fold_of_prompt([g.prompt.id for g in kept], 5, seed) == 0
    weights, facts = _train(X_RD, pairs_B2, held_P[prompt_R[pairs_B2[:, 0]]], hidden, l2, lr, steps, patience, seed)
    card = {
        "kind": KIND, "hidden": hidden, "l2": l2, "lr": lr, "steps": steps, "patience": patience,
        "seed": seed, "embedder": json.loads(canonical_json(dict(embed.card))), "pairs": len(pairs),
        "prompts": counts.prompts, "data_hash": counts.data_hash, "metrics": facts, "trimtab": __version__,
    }  # fmt: skip
    return PairwiseProbe(weights, card, embed)


def _train(
    X_RD: npt.NDArray[np.float32], pairs_B2: npt.NDArray[np.int64], held_B: npt.NDArray[np.bool_], hidden: int,
    l2: float, lr: float, steps: int, patience: int, seed: int,
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, float]]:  # fmt: skip
    import torch
    from torch.nn.functional import softplus

    mean_D, std_D = X_RD.mean(0), X_RD.std(0)
    scale_D = np.where(std_D > 1e-6 * np.abs(mean_D), 1 / np.maximum(std_D, 1e-12), 0.0).astype(np.float32)
    x_RD = torch.from_numpy((X_RD - mean_D) * scale_D)
    D, rng = x_RD.shape[1], torch.Generator().manual_seed(seed)
    theta = {"linear_D": torch.zeros(D)}
    if hidden:
        for name in ("first_HD", "second_HD"):
            theta[name] = torch.randn(hidden, D, generator=rng) / (2 * D) ** 0.5
        theta |= {"bias_H": torch.zeros(hidden), "out_H": torch.randn(hidden, generator=rng) * 0.1 / hidden**0.5}
    for t in theta.values():
        t.requires_grad_()
    pairs, held = torch.from_numpy(pairs_B2), torch.from_numpy(held_B)
    held = held if bool(held.any()) and not bool(held.all()) else torch.zeros_like(held)

    def loss_of(chosen: torch.Tensor) -> torch.Tensor:
        c, r = x_RD[chosen[:, 0]], x_RD[chosen[:, 1]]
        logit = (c - r) @ theta["linear_D"]
        if hidden:
            a, b = (x @ theta["first_HD"].T for x in (c, r))
            p, q = (x @ theta["second_HD"].T + theta["bias_H"] for x in (r, c))
            logit = logit + (torch.relu(a + p) - torch.relu(b + q)) @ theta["out_H"]
        return softplus(-logit).mean()

    optimizer = torch.optim.AdamW(list(theta.values()), lr=lr, weight_decay=l2)
    best, kept, waited, done = float("inf"), {k: v.detach().clone() for k, v in theta.items()}, 0, 0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = loss_of(pairs[~held])
        loss.backward()
        optimizer.step()
        if step % 10 and step < steps:
            continue
        with torch.no_grad():
            now = loss_of(pairs[held]).item() if bool(held.any()) else loss_of(pairs).item()
        if now < best - 1e-6:
            best, kept, waited, done = now, {k: v.detach().clone() for k, v in theta.items()}, 0, step
        elif (waited := waited + 1) >= patience:
            break
    weights = {"mean_D": mean_D.astype(np.float32), "scale_D": scale_D, **{k: v.numpy() for k, v in kept.items()}}
    return weights, {"held_out_loss": best, "steps": done}
