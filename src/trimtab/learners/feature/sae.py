"""HIDDEN STATES to sparse features and back: sparse autoencoders read from files, without the library that made them.

What files are read, and what in them, is `sae_files`'s business. A layer number is Hugging Face's, L = output of block
L before the final norm; SAELens's `blocks.24.hook_resid_post` and Gemma Scope's `layer_24` are therefore layer 25. It
does not know models; `check` compares an SAE with one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import InputError, ModelError, unknown
from trimtab.learners.feature.sae_files import CFG, NORMS, RESIDUAL, WEIGHTS, hook_of, layer_of, read_sae
from trimtab.lm.load import default_device
from trimtab.publish import publish, publish_text, reporting

KINDS = ("relu", "jumprelu", "topk", "identity")


@dataclass(frozen=True, eq=False, repr=False)
class SAE:
    """A sparse autoencoder: c = act(W_encᵀ(h − b_dec·centered) + b_enc), ĥ = W_decᵀ c + b_dec.

    act is ReLU, JumpReLU (z where z > threshold) or TopK (the k largest, then ReLU); "identity" leaves the hidden state
    as it is (the control without a dictionary). `norm` is applied to h first and undone on ĥ.
    """

    w_enc_DF: Tensor
    b_enc_F: Tensor
    w_dec_FD: Tensor
    b_dec_D: Tensor
    kind: str = "relu"
    threshold_F: Tensor | None = None
    k: int = 0
    centered: bool = True
    norm: str = "none"
    model: str = ""
    """The model it was trained on, "" when its files do not say."""
    layer: int | None = None
    site: str = ""
    """"residual" for a block's output; other sites are named as the files name them."""
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of SAE", self.kind, KINDS)
        if self.norm not in NORMS:
            raise unknown("normalisation of an SAE", self.norm, NORMS)
        if self.kind == "identity":
            return
        D, F = len(self.b_dec_D), len(self.b_enc_F)
        shapes = (self.w_enc_DF.shape, self.w_dec_FD.shape, () if self.threshold_F is None else self.threshold_F.shape)
        if shapes != ((D, F), (F, D), () if self.threshold_F is None else (F,)):
            raise InputError(f"an SAE of {D} inputs and {F} features has other shapes: {[tuple(x) for x in shapes]}")
        if self.kind == "jumprelu" and self.threshold_F is None:
            raise InputError("a JumpReLU SAE needs threshold_F")
        if self.kind == "topk" and not 1 <= self.k <= F:
            raise InputError(f"a TopK SAE of {F} features needs k from 1 to {F}, not {self.k}")

    @property
    def width(self) -> int:
        """Number of features F."""
        return self.w_enc_DF.shape[1]

    @property
    def inputs(self) -> int:
        """Size D of the hidden state it reads."""
        return self.w_enc_DF.shape[0]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of everything that decides the features."""
        digest = hashlib.sha256(repr((self.kind, self.k, self.centered, self.norm)).encode())
        for t in (self.w_enc_DF, self.b_enc_F, self.b_dec_D, self.threshold_F):
            if t is not None:
                digest.update(t.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        return f"SAE({self.kind}, {self.inputs} -> {self.width}, layer={self.layer}, {self.fingerprint})"

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "SAE":
        """The same SAE on another device or in another type."""
        tensors = ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D", "threshold_F")
        return replace(self, **{n: t.to(device, dtype) for n in tensors if (t := getattr(self, n)) is not None})

    def centre(self, hidden_XD: Tensor) -> Tensor:
        """The hidden state as the encoder takes it: in the SAE's type, normalised, the decoder's bias taken off."""
        h, _, _ = self._normalised(hidden_XD)
        return h - self.b_dec_D if self.centered else h

    def encode(self, hidden_XD: Tensor) -> Tensor:
        """Features of every token, shape (X, F)."""
        pre_XF = self.centre(hidden_XD) @ self.w_enc_DF + self.b_enc_F
        return self.gate(pre_XF, self.cutoff(pre_XF), slice(None))

    def cutoff(self, pre_XF: Tensor) -> Tensor | None:
        """TopK's threshold of each token, shape (X, 1); None for other kinds.

        Half way between the k-th and the next pre-activation: a matrix product over fewer columns rounds otherwise, and
        must not turn the k-th feature off.
        """
        if self.kind != "topk":
            return None
        if self.k >= pre_XF.shape[-1]:
            return torch.full_like(pre_XF[:, :1], -torch.inf)
        return pre_XF.detach().topk(self.k + 1, -1).values[:, -2:].mean(-1, keepdim=True)

    def gate(self, pre_XI: Tensor, cutoff_X1: Tensor | None, ids: Any) -> Tensor:
        """Pre-activations of the features `ids` to features; whether a feature is on has no gradient."""
        if self.kind == "identity":
            return pre_XI
        if self.kind == "topk" and cutoff_X1 is not None:
            return torch.where(pre_XI >= cutoff_X1, pre_XI, 0.0).relu()
        if self.kind == "jumprelu" and self.threshold_F is not None:
            return torch.where(pre_XI > self.threshold_F[ids], pre_XI, 0.0).relu()
        return pre_XI.relu()

    def decode(self, features_XF: Tensor, like_XD: Tensor | None = None) -> Tensor:
        """Hidden states from features, shape (X, D). With a norm, `like_XD` gives the scale to undo it with."""
        out_XD = features_XF @ self.w_dec_FD + self.b_dec_D
        if self.norm == "none":
            return out_XD
        if like_XD is None:
            raise InputError(f"this SAE normalises its input ({self.norm}): pass the hidden states to decode beside")
        _, scale, shift = self._normalised(like_XD)
        return out_XD * scale + shift

    def _normalised(self, hidden_XD: Tensor) -> tuple[Tensor, Any, Any]:
        h = hidden_XD.to(self.w_enc_DF.dtype)
        if self.norm == "layer_norm":
            mean = h.mean(-1, keepdim=True)
            std = (h - mean).std(-1, keepdim=True)
            return (h - mean) / (std + 1e-5), std, mean
        if self.norm == "constant_norm_rescale":
            scale = h.norm(dim=-1, keepdim=True) / self.inputs**0.5
            return h / scale, scale, 0.0
        return h, 1.0, 0.0

    def save(self, folder: str | Path) -> Path:
        """Writes a SAELens folder (`cfg.json`, safetensors) that both `load_sae` and SAELens read; returns it.

        InputError for the "identity" kind, which is no SAE.
        """
        from safetensors.torch import save_file

        if self.kind == "identity":
            raise InputError("the identity has no files: make it with identity_sae(size)")
        folder = Path(folder)
        with reporting(folder):
            folder.mkdir(parents=True, exist_ok=True)
        weights = {"W_enc": self.w_enc_DF, "b_enc": self.b_enc_F, "W_dec": self.w_dec_FD, "b_dec": self.b_dec_D}
        if self.threshold_F is not None:
            weights["threshold"] = self.threshold_F
        plain = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
        publish(folder / WEIGHTS, partial(save_file, plain))
        hook = self.site if self.site not in ("", RESIDUAL) else hook_of(self.layer)
        cfg = {
            "architecture": {"relu": "standard"}.get(self.kind, self.kind), "d_in": self.inputs, "d_sae": self.width,
            "dtype": str(self.w_enc_DF.dtype).removeprefix("torch."), "device": "cpu",
            "apply_b_dec_to_input": self.centered, "normalize_activations": self.norm, "reshape_activations": "none",
            **({"k": self.k, "rescale_acts_by_decoder_norm": False} if self.kind == "topk" else {}),
            "metadata": {"model_name": self.model, "hook_name": hook, "trimtab": dict(self.card)},
        }  # fmt: skip
        publish_text(folder / CFG, json.dumps(cfg, indent=2, default=str))
        return folder


def load_sae(
    path: str | Path,
    sae_id: str = "",
    *,
    layer: int | None = None,
    hook: str = "",
    norm_scale: float | None = None,
    device: str | None = None,
) -> SAE:
    """Reads a sparse autoencoder from files, or one of SAELens's named releases.

    `path` is a folder of SAELens, Gemma Scope or sparsify, or a file in it. With `sae_id` it is the name of a release,
    which SAELens fetches: load_sae("gpt2-small-res-jb", "blocks.1.hook_resid_post").
    `layer` fills in a layer that the files do not say; another than they say is a ModelError. `hook` replaces the hook
    that the files name, for a block under an unusual name. `norm_scale` folds in the scale of an SAE that was trained
    on scaled activations and whose files lack it.
    ModelError for files that are missing, broken or not read: gated, transcoders, other sites than a block's input or
    output, pickles, unknown words, wrong shapes, NaN.
    """
    if sae_id:
        return _from_release(str(path), sae_id, layer=layer, hook=hook, norm_scale=norm_scale, device=device)
    path = Path(path)
    sae = SAE(**read_sae(path, hook=hook, norm_scale=norm_scale))
    if layer is not None and sae.layer is not None and layer != sae.layer:
        raise ModelError(
            f"{path}: its files say layer {sae.layer} (output of block {sae.layer}, counted from 1), not {layer}; "
            "SAELens and Gemma Scope count blocks from 0, so their number is one lower"
        )
    try:
        sae = sae.to(device or default_device())
    except (RuntimeError, AssertionError) as e:  # torch: an unknown word, or a device that this build lacks
        raise InputError(f"device {device!r} cannot hold the SAE ({str(e).splitlines()[0]})") from e
    return replace(sae, layer=sae.layer if layer is None else layer)


def _from_release(release: str, sae_id: str, **options: Any) -> SAE:
    import tempfile

    try:
        from sae_lens import SAE as Theirs  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise ModelError(
            f"named releases need the library that knows them: pip install sae-lens ({e}); or download the files and "
            "give their folder"
        ) from e
    with tempfile.TemporaryDirectory() as folder:
        Theirs.from_pretrained(release, sae_id, device="cpu").save_model(folder)
        return load_sae(folder, **options)


def random_sae(like: SAE, seed: int = 0) -> SAE:
    """A random dictionary of the same shape, kind and number of active features: the control for "is it the features?".

    Encoder columns are random directions as long as the original's; the decoder is their transpose. Only for TopK is
    the number of active features the same by construction; InputError for other kinds.
    """
    if like.kind != "topk":
        raise InputError(
            f"a random dictionary with the same number of active features needs a TopK SAE, not {like.kind}"
        )
    rng = torch.Generator().manual_seed(seed)
    direction_DF = torch.randn(like.inputs, like.width, generator=rng).to(like.w_enc_DF)
    direction_DF = direction_DF / direction_DF.norm(dim=0)
    return replace(
        like, w_enc_DF=direction_DF * like.w_enc_DF.norm(dim=0), b_enc_F=torch.zeros_like(like.b_enc_F),
        w_dec_FD=direction_DF.T * like.w_dec_FD.norm(dim=1, keepdim=True), card={"random": seed},
    )  # fmt: skip


def identity_sae(size: int, layer: int | None = None) -> SAE:
    """No dictionary at all: the "features" are the hidden state's own coordinates (a plain hidden-state leash)."""
    eye, zero = torch.eye(size), torch.zeros(size)
    return SAE(eye, zero, eye, zero, kind="identity", centered=False, layer=layer, site="residual")


__all__ = ["SAE", "identity_sae", "layer_of", "load_sae", "random_sae"]
