"""Which trainings the repeat makes: sizes of each model, the methods, and the sweeps around FPO."""

from dataclasses import dataclass, field, replace
from typing import Any

from trimtab.learners.run import Lora


@dataclass(frozen=True)
class Setup:
    """Sizes of one model's repeat."""

    name: str
    layer: int
    others: tuple[int, ...]
    """Layers of a sweep."""
    width: int
    k: int
    samples: int
    lora: Lora | None
    rates: tuple[float, ...]
    batch: int
    prompts: tuple[int, int, int]
    """Training, validation, test."""
    n: int
    tokens: int
    seeds: int


STORIES = Setup("stories", 4, (2,), 256, 8, 400_000, None, (1e-3, 3e-4, 3e-3), 16, (200, 100, 160), 6, 32, 3)
SMOLLM2 = Setup("smollm2", 24, (), 1152, 24, 150_000, Lora(16, 32), (1e-3, 3e-4), 8, (120, 32, 64), 6, 16, 1)


@dataclass(frozen=True)
class Training:
    """One training: a loss, its settings, which leash, the place of its learning rate, and the seed."""

    name: str
    loss: str
    settings: dict[str, float] = field(default_factory=dict)
    leash: str = ""
    """"sae", "random" (a dictionary of the same shape, another one each seed) or "hidden" (no dictionary)."""
    alpha: float = 0.5
    """In units of 1 / the mean square of the start's top features on training pairs: dictionaries differ in scale."""
    stop: bool = True
    hold: tuple[int, ...] = ()
    """Only these features on the leash."""
    k: int = 50
    layer: int = 0
    rate: int = 0
    seed: int = 0

    @property
    def key(self) -> str:
        """Its name with the learning rate's place and the seed."""
        return f"{self.name} rate {self.rate} seed {self.seed}"


def fpo(name: str, beta: float = 2.0, **more: Any) -> Training:
    return Training(f"fpo {name}".strip(), "fpo", {"beta": beta}, more.pop("leash", "sae"), **more)


MAIN = [
    Training("sft", "sft"), Training("dpo", "dpo"), Training("ln_dpo", "ln_dpo", {"beta": 2.0}), fpo(""),
    Training("simpo", "simpo"), Training("tdpo2", "tdpo2"), Training("tdpo1", "tdpo1"), Training("orpo", "orpo"),
    Training("kto", "kto"),
    fpo("hidden", leash="hidden"), fpo("random", leash="random"),
]  # fmt: skip
"""Each is tuned over the same learning rates."""


def sweeps(setup: Setup) -> list[Training]:
    """What is tried around FPO; all at FPO's chosen rate."""
    found = [fpo(f"alpha {a:g}", alpha=a) for a in (5.0, 20.0, 100.0, 0.1)]
    found += [fpo(f"hidden alpha {a:g}", leash="hidden", alpha=a) for a in (5.0, 20.0, 0.1)]
    found += [fpo(f"random alpha {a:g}", leash="random", alpha=a) for a in (5.0, 20.0, 100.0, 400.0)]
    found += [Training(f"tdpo2 alpha {a:g}", "tdpo2", {"alpha": a}) for a in (0.1, 0.25, 1.0, 2.0)]
    for beta in (0.1, 5.0, 10.0):
        found += [fpo(f"beta {beta:g}", beta), Training(f"ln_dpo beta {beta:g}", "ln_dpo", {"beta": beta})]
    found += [fpo(f"alpha {a:g} no stop", alpha=a, stop=False) for a in (0.5, 5.0, 20.0)]
    found += [fpo(f"alpha 5 k {k}", alpha=5.0, k=k) for k in (10, 200)]
    found += [fpo(f"alpha 5 layer {n}", alpha=5.0, layer=n) for n in setup.others]
    for loss in ("simpo", "dpo"):
        found += [Training(f"{loss} + leash alpha {a:g}", loss, {}, "sae", alpha=a) for a in (0.5, 5.0)]
    return found


def leashes() -> list[Training]:
    """Leashes from loose to tight at one rate, the one that most methods chose: for reward at equal drift."""
    found = [
        fpo("", alpha=0.5),
        fpo("hidden", leash="hidden"),
        fpo("random", leash="random"),
        Training("tdpo2", "tdpo2"),
    ]
    found += [fpo(f"alpha {a:g}", alpha=a) for a in (5.0, 20.0, 100.0)]
    found += [fpo(f"hidden alpha {a:g}", leash="hidden", alpha=a) for a in (5.0, 20.0)]
    return found + [Training(f"tdpo2 alpha {a:g}", "tdpo2", {"alpha": a}) for a in (0.1, 0.25, 1.0)]


def at(run: Training, rate: int, seed: int = 0) -> Training:
    return replace(run, rate=rate, seed=seed)
