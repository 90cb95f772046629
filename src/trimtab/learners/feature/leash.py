"""PAIRS' hidden states to a penalty: FPO's leash of SAE features (Yin et al. 2025, arXiv 2411.07618, eq. 10 to 13).

δ = α·β·(D(rejected) − sg D(chosen)). D is the squared difference between the policy's and the reference's features,
each averaged over the completion's own tokens, summed over the union of both top-k sets and divided by k. The
reference's are computed once and kept in the store as whole sparse vectors, so no reference model is in memory and the
union is exact. It plugs into `train_policy` beside any loss of a margin; it does not train the SAE.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab.errors import InputError, ModelError
from trimtab.learners.feature.check import family_mismatch
from trimtab.learners.feature.sae import SAE, load_sae
from trimtab.learners.feature.sae_files import RESIDUAL
from trimtab.learners.token.examples import Example
from trimtab.learners.token.reference import content_id
from trimtab.lm.forward import blocks_of, computed_in, hidden_at, watched
from trimtab.lm.tree import BranchRows, lay_out, length_buckets
from trimtab.progress import track
from trimtab.store import Store
from trimtab.types import fingerprint


class Sparse(NamedTuple):
    """The nonzero entries of a pooled feature vector."""

    ids: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]


class Drift(NamedTuple):
    """What the leash adds to a step: the penalty in units of a log-ratio (δ/β), and D of each side, shape (B,)."""

    penalty_B: Tensor
    chosen_B: Tensor
    rejected_B: Tensor


@dataclass(frozen=True)
class FeatureLeash:
    """Holds the policy near the reference in the space of an SAE's features; FPO's α, k and layer.

    `hold` puts only these features on the leash, active or not; `free` lets these go (FPO's section 5.3). D divides by
    k, as the paper does, though the union may have up to 2k members; with `hold` it divides by their number.
    `stop_gradient=False` lets the gradient through D(chosen) too, which then *rewards* moving the chosen's features.
    """

    sae: SAE | str | Path
    layer: int | None = None
    """Hugging Face's number, L = output of block L before the final norm; None takes the SAE's own."""
    alpha: float = 0.5
    k: int = 50
    stop_gradient: bool = True
    hold: tuple[int, ...] = ()
    free: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.k < 1 or self.alpha < 0:
            raise InputError(f"a leash needs k >= 1 and alpha >= 0, not k={self.k}, alpha={self.alpha}")

    @cached_property
    def dictionary(self) -> SAE:
        """The SAE itself, read when a folder was given. InputError when no layer is known."""
        sae = self.sae if isinstance(self.sae, SAE) else load_sae(self.sae, layer=self.layer)
        if sae.site not in ("", RESIDUAL):
            raise InputError(
                f"the SAE is of the site {sae.site!r}; a leash reads a block's output (the residual stream)"
            )
        if self.layer is not None and sae.layer is not None and sae.layer != self.layer:
            raise InputError(f"the SAE is of layer {sae.layer}, the leash asks for layer {self.layer}")
        if (layer := self.layer if sae.layer is None else sae.layer) is None:
            raise InputError(
                "the SAE's files do not say its layer: pass layer= (L = output of block L, counted from 1)"
            )
        for i in (*self.hold, *self.free):
            if not 0 <= i < sae.width:
                raise InputError(f"feature {i} does not exist: the SAE has features 0 to {sae.width - 1}")
        return replace(sae, layer=layer)

    @property
    def card(self) -> dict[str, Any]:
        """What decides the result, for a run's settings."""
        sae = self.dictionary
        return {
            "sae": sae.fingerprint, "width": sae.width, "layer": sae.layer, "alpha": self.alpha, "k": self.k,
            "divisor": "held" if self.hold else "k",
            "stop_gradient": self.stop_gradient, "hold": list(self.hold), "free": list(self.free),
        }  # fmt: skip

    def on(self, model: Any) -> "FeatureLeash":
        """The leash with its SAE on the model's device. ModelError when it does not fit: layer, size, architecture."""
        sae, last = self.dictionary, len(blocks_of(model))
        size = model.config.get_text_config().hidden_size
        if sae.inputs != size or not 0 <= (sae.layer or 0) <= last:
            raise ModelError(
                f"the SAE reads {sae.inputs} numbers at layer {sae.layer}; the model has {size} at layers 0 to {last}"
            )
        if (wrong := family_mismatch(sae.model, model.config)) is not None:
            raise ModelError(f"the SAE does not fit: {wrong}")
        return replace(self, sae=sae.to(next(model.parameters()).device), layer=sae.layer)

    def with_features(
        self, examples: Sequence[Example], lm: Any, store: Store, *, budget: int = 4096, share_prompt: bool = True
    ) -> list[Example]:
        """Examples with the reference's pooled features of their completions, from the store or from `lm`'s forward."""
        rows = [(e.prompt, e.completions) for e in examples]
        found = reference_features(rows, self.dictionary, lm, store, budget=budget, share_prompt=share_prompt)
        return [replace(e, features=tuple(f)) for e, f in zip(examples, found, strict=True)]

    @contextlib.contextmanager
    def watch(self, model: Any) -> Iterator[dict[int, Tensor]]:
        """Within the block, a forward of the policy leaves its hidden states here."""
        with watched(model, [self.dictionary.layer or 0]) as seen:
            yield seen

    def drift(self, seen: dict[int, Tensor], rows: BranchRows, examples: Sequence[Example]) -> Drift:
        """The penalty of each pair, with gradient to the policy, from one forward's hidden states.

        The pooled features of everything are computed without gradient to find the union, and those of the union once
        more with it: at most 2k columns of the encoder take part in the backward pass.
        """
        with torch.autocast(rows.ids_BT.device.type, enabled=False):  # the reference's features have the SAE's type
            return self._drift(seen, rows, examples)

    def _drift(self, seen: dict[int, Tensor], rows: BranchRows, examples: Sequence[Example]) -> Drift:
        sae = self.dictionary
        hidden_XD = seen[sae.layer or 0].flatten(0, 1)[rows.own_X]
        pooled_CF, cutoff_X1 = pooled_features(sae, hidden_XD.detach(), rows)
        ref_CF = torch.zeros_like(pooled_CF)
        for c, sparse in enumerate(f for e in examples for f in e.features):
            ids = torch.as_tensor(sparse.ids, dtype=torch.long, device=ref_CF.device)
            ref_CF[c, ids] = torch.as_tensor(sparse.values, device=ref_CF.device, dtype=ref_CF.dtype)
        on_CF = self.union(pooled_CF, ref_CF)
        lengths = rows.length_C.tolist()  # tokens of a completion stand together
        parts = hidden_XD.split(lengths)
        cutoffs = [None] * len(parts) if cutoff_X1 is None else cutoff_X1.split(lengths)
        each = [self._one(*x) for x in zip(parts, cutoffs, on_CF, ref_CF, strict=True)]
        drift_C = torch.stack(each)
        chosen_B, rejected_B = drift_C.view(-1, 2).unbind(1)
        held_B = chosen_B.detach() if self.stop_gradient else chosen_B
        return Drift(self.alpha * (rejected_B - held_B), chosen_B, rejected_B)

    def union(self, policy_CF: Tensor, ref_CF: Tensor) -> Tensor:
        """Which features count, shape (C, F) bool: `hold`, or the top k of either side that are not 0, less `free`."""
        if self.hold:
            on_CF = torch.zeros_like(policy_CF, dtype=torch.bool)
            on_CF[:, list(self.hold)] = True
        else:
            on_CF = top_mask(policy_CF, self.k) | top_mask(ref_CF, self.k)
        if self.free:
            on_CF[:, list(self.free)] = False
        return on_CF

    def _one(self, hidden_TD: Tensor, cutoff_T1: Tensor | None, on_F: Tensor, ref_F: Tensor) -> Tensor:
        sae, ids = self.dictionary, on_F.nonzero()[:, 0]
        centred_TD = sae.centre(hidden_TD)
        if not len(ids) or not len(centred_TD):
            return centred_TD.sum() * 0.0
        pre_TI = centred_TD @ sae.w_enc_DF[:, ids] + sae.b_enc_F[ids]
        return ((sae.gate(pre_TI, cutoff_T1, ids).mean(0) - ref_F[ids]) ** 2).sum() / (len(self.hold) or self.k)


def top_mask(pooled_CF: Tensor, k: int) -> Tensor:
    """The k largest magnitudes of each row, shape (C, F) bool; zeros are never among them."""
    size_CF = pooled_CF.abs()
    top = size_CF.topk(min(k, size_CF.shape[1]), -1)
    return torch.zeros_like(pooled_CF, dtype=torch.bool).scatter(1, top.indices, top.values > 0)


@torch.no_grad()
def pooled_features(
    sae: SAE, hidden_XD: Tensor, rows: BranchRows, *, chunk: int = 2**22
) -> tuple[Tensor, Tensor | None]:
    """Mean features over each completion's own tokens, shape (C, F), and TopK's cutoffs, shape (X, 1).

    Without gradient; `chunk` numbers of features exist at a time.
    """
    total_CF = sae.w_enc_DF.new_zeros((rows.owners, sae.width))
    cutoffs = []
    step = max(1, chunk // sae.width)
    for i in range(0, len(hidden_XD), step):
        pre_cF = sae.centre(hidden_XD[i : i + step]) @ sae.w_enc_DF + sae.b_enc_F
        cutoff = sae.cutoff(pre_cF)
        cutoffs.append(cutoff)
        total_CF.index_add_(0, rows.owner_X[i : i + step], sae.gate(pre_cF, cutoff, slice(None)))
    pooled_CF = total_CF / rows.length_C[:, None]
    return pooled_CF.nan_to_num(0.0), torch.cat(cutoffs) if cutoffs and cutoffs[0] is not None else None


@torch.no_grad()
def completion_features(
    model: Any, sae: SAE, prompts: Sequence[Sequence[int]], branches: Sequence[Sequence[Sequence[int]]], *,
    budget: int = 4096, share_prompt: bool = True,
) -> list[list[Sparse]]:  # fmt: skip
    """Pooled features of each prompt's completions, whole and sparse, in the order given; no gradient."""
    sizes = [len(p) + sum(map(len, bs)) for p, bs in zip(prompts, branches, strict=True)]
    out: list[list[Sparse]] = [[] for _ in prompts]
    device, layer = next(model.parameters()).device, sae.layer or 0
    for batch in length_buckets(sizes, budget):
        rows = lay_out([prompts[i] for i in batch], [branches[i] for i in batch], share_prompt=share_prompt).to(device)
        with watched(model, [layer]) as seen:
            hidden_at(model, rows)
        pooled_CF, _ = pooled_features(sae, seen[layer].flatten(0, 1)[rows.own_X], rows)
        dense = iter(pooled_CF.float().cpu().numpy())
        for i in batch:
            out[i] = [_sparse(next(dense)) for _ in branches[i]]
    return out


def reference_features(
    rows: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], sae: SAE, lm: Any, store: Store, *,
    budget: int = 4096, share_prompt: bool = True,
) -> list[list[Sparse]]:  # fmt: skip
    """The reference's pooled features of each (prompt, completions) through the store, keyed by token ids.

    The whole vector is kept and not its top k: the policy's top k may leave the reference's, and there the reference's
    value is needed, too.
    """
    settings = {
        "reference": f"{Path(lm.name).name}@{lm.revision}", "dtype": computed_in(lm.model),
        "sae": sae.fingerprint, "layer": sae.layer,
    }  # fmt: skip
    table = f"features/{fingerprint(settings)[:12]}"
    with store.writer(table, settings) as writer:
        missing = [(p, [c for c in cs if content_id(p, c) not in writer.ids]) for p, cs in rows]
        missing = [(p, list(dict.fromkeys(map(tuple, cs)))) for p, cs in missing if cs]
        chunks = [missing[i : i + 64] for i in range(0, len(missing), 64)]
        for chunk in track(chunks, len(chunks), "reference features"):
            prompts, branches = [p for p, _ in chunk], [cs for _, cs in chunk]
            found = completion_features(lm.model, sae, prompts, branches, budget=budget, share_prompt=share_prompt)
            for p, completions, sparse in zip(prompts, branches, found, strict=True):
                writer.append(
                    {"id": i, "features": s.ids.tolist(), "values": s.values.tolist()}
                    for c, s in zip(completions, sparse, strict=True)
                    for i in [content_id(p, c)]
                    if i not in writer.ids  # the same prompt and completion may stand in several pairs
                )
    kept = store.read(table)
    columns = (kept[name].to_pylist() for name in ("id", "features", "values"))
    known = {i: Sparse(np.array(f, np.int32), np.array(v, np.float32)) for i, f, v in zip(*columns, strict=True)}
    return [[known[content_id(p, c)] for c in cs] for p, cs in rows]


def _sparse(dense_F: npt.NDArray[np.float32]) -> Sparse:
    ids = np.flatnonzero(dense_F).astype(np.int32)
    return Sparse(ids, dense_F[ids])
