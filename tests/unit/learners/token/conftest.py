from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from trimtab.learners.run import Checkpoints, Compute, Encoding, Optim
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group, Pair, Reward


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory) -> str:
    return str(tiny_lm(tmp_path_factory.mktemp("lm") / "tiny"))


def words(rng: np.random.Generator, low: int, high: int) -> str:
    return "".join(rng.choice(list("abcdefgh "), int(rng.integers(low, high))))


def make_pairs(n: int, seed: int = 0) -> list[Pair]:
    """Chosen completions end in vowels' "aaa", rejected in "hhh": something to learn."""
    rng = np.random.default_rng(seed)
    return [
        Pair(
            prompt(words(rng, 3, 30)),
            Completion(words(rng, 2, 12) + "aaa", "x", 0, 0),
            Completion(words(rng, 2, 12) + "hhh", "x", 1, 1),
        )
        for _ in range(n)
    ]


def make_groups(n: int, seed: int = 0) -> list[Group]:
    return [Group(p.prompt, (p.chosen, p.rejected), (Reward(1.0), Reward(0.0))) for p in make_pairs(n, seed)]


def tensors(folder: str | Path) -> dict:
    from safetensors.torch import load_file

    return load_file(next(Path(folder).glob("*.safetensors")))


def grouped(**flat):
    """Keywords of a training as a test varies them, one by one, to the groups that it takes."""
    groups = {"optim": Optim, "encoding": Encoding, "compute": Compute, "checkpoints": Checkpoints}
    given = {}
    for name, kind in groups.items():
        known = [f.name for f in fields(kind) if f.name in flat]
        given[name] = kind(**{k: flat.pop(k) for k in known})
    return flat | given
