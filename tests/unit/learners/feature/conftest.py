import pytest
import torch

from trimtab.learners.feature.sae import SAE
from trimtab.lm.load import load_lm
from trimtab.testing import tiny_lm


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory) -> str:
    return str(tiny_lm(tmp_path_factory.mktemp("lm") / "tiny"))


@pytest.fixture(scope="session")
def lm(lm_folder):
    return load_lm(lm_folder, "float32")


def make_sae(size: int = 32, width: int = 48, kind: str = "topk", layer: int = 2, seed: int = 0) -> SAE:
    """A random SAE, well away from every edge."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=rng)

    return SAE(
        normal(size, width, scale=0.3), normal(width, scale=0.1), normal(width, size, scale=0.3),
        normal(size, scale=0.1), kind, normal(width).abs() * 0.3 if kind == "jumprelu" else None,
        6 if kind == "topk" else 0, layer=layer, site="residual",
    )  # fmt: skip
