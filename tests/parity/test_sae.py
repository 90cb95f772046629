"""Our reader and arithmetic of SAEs against SAELens's own numbers (sae_values.json, made by make_sae_values.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trimtab.learners.feature.sae import load_sae

VALUES = json.loads(Path(__file__).with_name("sae_values.json").read_text())


@pytest.mark.parametrize("name", VALUES["cases"])
def test_encode_and_decode_equal_saelens(name, tmp_path):
    case = VALUES["cases"][name]
    if "npz" in case:
        np.savez(tmp_path / "params.npz", **{k: np.array(v, np.float32) for k, v in case["npz"].items()})
    else:
        (tmp_path / "cfg.json").write_text(json.dumps(case["cfg"]))
        save_file({k: torch.tensor(v) for k, v in case["weights"].items()}, tmp_path / "sae_weights.safetensors")
    sae, hidden = load_sae(tmp_path), torch.tensor(VALUES["hidden"])
    features, wanted = sae.encode(hidden), torch.tensor(case["features"])
    assert (wanted > 0).any()
    torch.testing.assert_close(features, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.decode(features, hidden), torch.tensor(case["decoded"]), rtol=1e-5, atol=1e-5)
    if "cfg" in case:
        assert (sae.layer, sae.model) == (5, "tiny")
