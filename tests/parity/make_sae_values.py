"""Writes sae_values.json: what SAELens 6.54.12 makes of small SAEs, so that ours can be held against it without it.

    pip install sae-lens==6.54.12 && python tests/parity/make_sae_values.py

Three SAELens folders (TopK with decoder norms, JumpReLU, ReLU; weights drawn with seeds) and a Gemma-Scope-shaped npz
read through its converter's rules: weights, inputs, features and reconstructions.
"""

import json
import tempfile
from pathlib import Path

import torch
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig

D, F, X = 6, 10, 4


def normal(rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=rng)


def fill(sae: SAE, seed: int) -> SAE:
    rng = torch.Generator().manual_seed(seed)
    for name, p in sorted(sae.named_parameters()):
        p.data = normal(rng, *p.shape) * (0.3 if p.dim() == 1 else 0.5)
        if name == "threshold":
            p.data = p.data.abs()
    return sae


def lists(x: torch.Tensor) -> list:
    return x.detach().tolist()


def case(sae: SAE, hidden: torch.Tensor) -> dict:
    """What SAELens writes to disk, and its own numbers after reading it back."""
    with tempfile.TemporaryDirectory() as folder:
        sae.save_model(folder)
        cfg = json.loads((Path(folder) / "cfg.json").read_text())
        loaded = SAE.load_from_disk(folder)
    features = loaded.encode(hidden)
    return {
        "cfg": cfg, "weights": {k: lists(v) for k, v in sae.state_dict().items()}, "features": lists(features),
        "decoded": lists(loaded.decode(features)),
    }  # fmt: skip


def main() -> None:
    hidden = 2 * normal(torch.Generator().manual_seed(0), X, D) + 0.5
    meta = {"hook_name": "blocks.4.hook_resid_post", "model_name": "tiny"}
    topk = TopKSAE(TopKSAEConfig(D, F, k=3, rescale_acts_by_decoder_norm=True))
    plain = StandardSAE(StandardSAEConfig(D, F, normalize_activations="layer_norm"))
    cases = {
        "topk": case(fill(topk, 1), hidden),
        "jumprelu": case(fill(JumpReLUSAE(JumpReLUSAEConfig(D, F)), 2), hidden),
        "standard": case(fill(plain, 3), hidden),
    }
    for c in cases.values():
        c["cfg"]["metadata"].update(meta)
    gemma = fill(
        JumpReLUSAE(JumpReLUSAEConfig(D, F, apply_b_dec_to_input=False)), 4
    )  # as its Gemma Scope loader sets it
    features = gemma.encode(hidden)
    cases["gemma_scope"] = {
        "npz": {k: lists(v) for k, v in gemma.state_dict().items()}, "features": lists(features),
        "decoded": lists(gemma.decode(features)),
    }  # fmt: skip
    out = {
        "made_by": "sae-lens 6.54.12, python tests/parity/make_sae_values.py",
        "hidden": lists(hidden),
        "cases": cases,
    }
    Path(__file__).with_name("sae_values.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main()
