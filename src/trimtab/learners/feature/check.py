"""An SAE and a MODEL to how well they fit each other: reconstruction, sparsity and dead features on one's own texts.

The tokens measured are the completions', which the leash will see. Every layer and the final norm's output are measured
beside the layer asked, so that a layer off by one or a state behind the norm is found before it is trained on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import InputError, ModelError
from trimtab.learners.feature.sae import SAE
from trimtab.learners.feature.sae_files import NORMS, RESIDUAL
from trimtab.learners.feature.states import hidden_rows, token_rows
from trimtab.lm.forward import FINAL_NORM, blocks_of
from trimtab.lm.load import LM

FAMILIES = {
    "gemma-3-": "gemma3", "gemma-2-": "gemma2", "gpt2": "gpt2", "pythia": "gpt_neox", "llama": "llama",
    "qwen3": "qwen3", "qwen2": "qwen2", "mistral": "mistral", "phi-3": "phi3", "olmo": "olmo",
}  # fmt: skip
"""A word in a model's name, and how its configuration's model_type begins. The first word that is found counts."""


@dataclass(frozen=True)
class SAECheck:
    """How an SAE does on a model's hidden states; `problems` forbid its use, `warnings` do not."""

    layer: int
    fvu: float
    """Fraction of variance unexplained: Σ|h − ĥ|² / Σ|h − mean h|²; 0 is perfect, 1 no better than the mean."""
    l0: float
    """Active features a token."""
    dead: float
    """Fraction of the features that no token activates."""
    tokens: int
    elsewhere: dict[int, float]
    """FVU of the same SAE at other layers; -1 is behind the final norm."""
    readings: dict[str, float] = field(default_factory=dict)
    """FVU at the layer asked if the files meant another treatment of the input than they say (see `other_readings`)."""
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def require(self) -> "SAECheck":
        """The check itself. ModelError when the SAE must not be used, with the numbers."""
        if self.problems:
            raise ModelError("; ".join(self.problems))
        return self

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        near = ", ".join(
            f"{'final norm' if n == FINAL_NORM else n}: {v:.3f}" for n, v in sorted(self.elsewhere.items())
        )
        head = (
            f"layer {self.layer}: FVU {self.fvu:.3f}, L0 {self.l0:.1f}, dead {self.dead:.1%} "
            f"over {self.tokens:,} tokens\nFVU elsewhere: {near}"
        )
        if self.readings:
            head += "\nFVU if " + ", ".join(f"{name}: {v:.3f}" for name, v in self.readings.items())
        return "\n".join([head, *(f"problem: {p}" for p in self.problems), *(f"warning: {w}" for w in self.warnings)])


def check_sae(
    sae: SAE, lm: LM, data: Sequence[Any], *, layer: int | None = None, max_fvu: float = 0.5, max_dead: float = 0.9,
    budget: int = 2048, everywhere: bool = True,
) -> SAECheck:  # fmt: skip
    """Measures an SAE on `data` (pairs, groups or texts) at `layer` (the SAE's own by default) and at every other one.

    Problems: another size or family of models; another layer or site than its files say; FVU above `max_fvu`; another
    place that it reconstructs clearly better (FVU less than 0.9 of it); a reading of its normalisation that is far
    better (less than half). Warnings: another model's name; a reading that is clearly better; more than `max_dead` of
    the features never active; L0 twice or half of what its card says; fewer tokens than features.
    """
    layer = sae.layer if layer is None else layer
    if layer is None:
        raise InputError("the SAE's files do not say its layer: pass layer=")
    size, last = lm.model.config.get_text_config().hidden_size, len(blocks_of(lm.model))
    if sae.inputs != size or not 0 <= layer <= last:
        text = f"the SAE reads {sae.inputs} numbers at layer {layer}; {lm.name} has {size} at layers 0 to {last}"
        return SAECheck(layer, float("nan"), float("nan"), float("nan"), 0, {}, problems=(text,))
    places = [*range(last + 1), FINAL_NORM] if everywhere else [layer]
    sae = sae.to(next(lm.model.parameters()).device)
    sums = {p: _Sums(sae) for p in places}
    readings: dict[str, tuple[SAE, _Sums]] = {}
    for states in hidden_rows(lm, token_rows(lm.tokenizer, data), places, budget=budget):
        readings = readings or {n: (other, _Sums(other)) for n, other in other_readings(sae, states[layer]).items()}
        for place, hidden_XD in states.items():
            sums[place].add(sae, hidden_XD)
        for other, kept in readings.values():
            kept.add(other, states[layer])
    here = sums[layer]
    if not here.tokens:
        raise InputError("no tokens to check the SAE on: pass pairs, groups or texts of at least two tokens")
    found = {p: s.fvu for p, s in sums.items() if p != layer}
    read = {n: kept.fvu for n, (_, kept) in readings.items()}
    alive = here.alive_F.mean().item()
    result = SAECheck(layer, here.fvu, here.active / here.tokens, 1 - alive, here.tokens, found, read)
    problems, warnings = _judge(sae, lm, result, max_fvu, max_dead)
    return SAECheck(**{**asdict(result), "problems": tuple(problems), "warnings": tuple(warnings)})


def other_readings(sae: SAE, hidden_XD: Tensor) -> dict[str, SAE]:
    """The same weights read otherwise: what an SAE would be whose files misname how its input is treated.

    Left unfolded most often is the scale to a mean norm of √D (SAELens's "expected_average_only_in"), here estimated on
    the given states.
    """
    scale = sae.inputs**0.5 / float(hidden_XD.float().norm(dim=-1).mean().clamp(min=1e-6))
    scaled = replace(
        sae, w_enc_DF=sae.w_enc_DF * scale, w_dec_FD=sae.w_dec_FD / scale, b_dec_D=sae.b_dec_D / scale, norm="none"
    )
    found = {f"activations scaled by {scale:.3g}": scaled} if sae.kind != "identity" else {}
    return found | {f"normalised by {norm}": replace(sae, norm=norm) for norm in NORMS if norm != sae.norm}


class _Sums:
    """What the measures of one place are made of, token by token in float64."""

    def __init__(self, sae: SAE):
        self.error = self.square = self.active = 0.0
        self.tokens = 0
        self.total_D = torch.zeros(sae.inputs, dtype=torch.float64)
        self.alive_F = torch.zeros(sae.width)

    def add(self, sae: SAE, hidden_XD: Tensor) -> None:
        hidden_XD = hidden_XD.to(sae.w_enc_DF.dtype)
        features_XF = sae.encode(hidden_XD)
        rest_XD = hidden_XD - sae.decode(features_XF, hidden_XD)
        self.error += rest_XD.double().square().sum().item()
        self.square += hidden_XD.double().square().sum().item()
        self.total_D += hidden_XD.double().sum(0).cpu()
        self.active += (features_XF != 0).sum().item()
        self.alive_F = torch.maximum(self.alive_F, (features_XF != 0).any(0).float().cpu())
        self.tokens += len(hidden_XD)

    @property
    def fvu(self) -> float:
        variance = self.square - self.total_D.square().sum().item() / max(self.tokens, 1)
        return self.error / variance if variance > 0 else float("nan")


def _judge(sae: SAE, lm: LM, r: SAECheck, max_fvu: float, max_dead: float) -> tuple[list[str], list[str]]:
    problems, warnings = [], []
    if sae.layer is not None and sae.layer != r.layer:
        problems.append(
            f"its files say layer {sae.layer}, not {r.layer} (layers are counted from 1 at the first block)"
        )
    if sae.site not in ("", RESIDUAL):
        problems.append(f"its files say the site {sae.site!r}; a leash reads a block's output (the residual stream)")
    if (family := family_mismatch(sae.model, lm.model.config)) is not None:
        problems.append(family)
    read = min(r.readings, key=lambda n: r.readings[n], default="")
    if read and r.readings[read] < 0.9 * r.fvu:
        text = (
            f"it reconstructs {r.readings[read]:.3f} (FVU) with {read}, {r.fvu:.3f} as its files say (normalisation "
            f"{sae.norm!r}): its normalisation was probably left unfolded"
        )
        (problems if r.readings[read] < 0.5 * r.fvu else warnings).append(text)
    better = min(r.elsewhere, key=lambda p: r.elsewhere[p], default=None)
    if better is not None and r.elsewhere[better] < 0.9 * r.fvu:
        place = "what is behind the final norm" if better == FINAL_NORM else f"layer {better}"
        problems.append(
            f"it reconstructs {place} better (FVU {r.elsewhere[better]:.3f}) than layer {r.layer} ({r.fvu:.3f}): "
            "it was probably trained there"
        )
    if not r.fvu <= max_fvu:
        problems.append(
            f"it leaves {r.fvu:.0%} of the variance at layer {r.layer} unexplained (more than {max_fvu:.0%}): it does "
            "not fit this model, layer or text"
        )
    trained, ours = sae.model.split("/")[-1].lower(), lm.name.rstrip("/").split("/")[-1].lower()
    if kwargs := sae.card.get("model_kwargs"):
        warnings.append(f"it was trained on a model loaded with {kwargs}: this model's states may differ from those")
    if trained and trained != ours and family is None:
        warnings.append(f"it was trained on {sae.model}, this model is {lm.name}")
    if r.dead > max_dead:
        warnings.append(f"{r.dead:.0%} of its features are never active on these {r.tokens:,} tokens")
    said = sae.card.get("l0")
    if said and not 0.5 <= r.l0 / said <= 2:
        warnings.append(f"{r.l0:.1f} features are active a token; its card says {said:.1f}")
    if r.tokens < sae.width:
        warnings.append(f"{r.tokens:,} tokens are few for {sae.width:,} features: give more text")
    return problems, warnings


def family_mismatch(trained: str, config: Any) -> str | None:
    """What is wrong when an SAE's model is of another architecture than `config`; None when that is not known."""
    name, kind = trained.split("/")[-1].lower(), str(config.get_text_config().model_type)
    known = next((prefix for word, prefix in FAMILIES.items() if word in name), None)
    if known is None or kind.startswith(known):
        return None
    return f"it was trained on {trained} ({known}), this model's architecture is {kind}"
