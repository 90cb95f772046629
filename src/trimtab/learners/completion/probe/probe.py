"""Scored GROUPS and an Embedder to a Probe: a small function of a completion's embedding that is itself a RewardFn.

Q-Probe (Li et al., ICML 2024, arXiv 2402.14688): values of k sampled completions decide which one is used. Strength of
L2, embedding (layer) and loss are chosen by cross-validation over prompts, which the paper does not do. It does not
sample, embed or decode: the embedder comes as an argument, decoders spend the probe.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError, ModelError, differences, unknown
from trimtab.fitted import load_fitted, save_fitted
from trimtab.learners.completion.probe import minibatch
from trimtab.learners.completion.probe.data import (
    Counts,
    Labels,
    check_labels,
    chosen_reward,
    embed_rows,
    groups_of_pairs,
    make_labels,
    make_units,
    scored,
)
from trimtab.learners.completion.probe.linear import (
    CHUNK_DRAWS,
    CV,
    STOP,
    Problem,
    best_l2,
    cross_validate,
    l2_grid,
    stop_for,
)
from trimtab.learners.completion.probe.losses import LOSS_UNITS, PROBE_LOSSES
from trimtab.learners.completion.probe.minibatch import Layer, Schedule, fit_minibatch
from trimtab.learners.completion.probe.row_blocks import row_blocks
from trimtab.types import Embedder, Group, Pair, Reward, canonical_json
from trimtab.version import __version__

FILE, CARD, KIND = "probe.safetensors", "card.json", "q_probe"
OPTIMIZERS = ("lbfgs", "adam", "adamw")


@dataclass(frozen=True, eq=False)
class Probe:
    """Value of a completion from its embedding; a RewardFn once it has its embedder.

    `layers` are (weight (out, in), bias (out,)) float32 with ReLU between them, one for a linear probe. `card` says
    what the probe was fitted on and must be used with. The value is the raw output (a logit for CE), higher is better.
    """

    layers: tuple[Layer, ...]
    card: Mapping[str, Any]
    embed: Embedder | None = None
    weights_hash: str = field(default="", init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(b"".join(a.astype("<f4").tobytes() for layer in self.layers for a in layer))
        object.__setattr__(self, "weights_hash", digest.hexdigest()[:32])

    def __repr__(self) -> str:
        """Short and the same for the same probe: it is the manifest's entry."""
        return f"Probe(loss={self.card['loss']!r}, weights={self.weights_hash!r}, embedder={self.card['embedder']!r})"

    def values(self, features_ND: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Value of each row, shape (N,), computed in float64 so that batches of any size agree."""
        if features_ND.ndim != 2 or features_ND.shape[1] != self.layers[0][0].shape[1]:
            raise InputError(
                f"vectors have shape {features_ND.shape}; this probe takes (N, {self.layers[0][0].shape[1]})"
            )
        out = []
        for i in range(0, max(len(features_ND), 1), 4096):
            x = features_ND[i : i + 4096].astype(np.float64)
            for n, (weight, bias) in enumerate(self.layers):
                x = (np.maximum(x, 0) if n else x) @ weight.T.astype(np.float64) + bias
            out.append(x[:, 0])
        return np.concatenate(out)

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward a completion. ModelError when there is no embedder or it is not the one of the card."""
        if self.embed is None:
            raise ModelError(
                "this probe has no embedder: give one, Probe.load(folder, embed) or replace(probe, embed=...)"
            )
        check_card(self.card["embedder"], self.embed.card)
        if not groups:
            return []
        values = [self.values(np.asarray(x)) for x in self.embed(groups)]
        note = "the embedding or the probe's value is not finite"
        return [[Reward(float(v)) if np.isfinite(v) else Reward(float("nan"), note) for v in v_N] for v_N in values]

    def save(self, folder: str | Path) -> Path:
        """Writes probe.safetensors and card.json into `folder` (made if needed); returns it."""
        names = [f"{n}.{kind}" for n in range(len(self.layers)) for kind in ("weight", "bias")]
        arrays = [np.asarray(a, dtype=np.float32) for layer in self.layers for a in layer]
        return save_fitted(Path(folder), dict(zip(names, arrays, strict=True)), self.card, FILE, CARD)

    @classmethod
    def load(cls, folder: str | Path, embed: Embedder | None = None) -> "Probe":
        """The probe of `folder`, with the same rewards as when it was saved. Without `embed` only `values` works.

        InputError when the files are missing or broken; ModelError, with the difference, when `embed` has another card.
        """
        folder = Path(folder)
        card, tensors = load_fitted(folder, FILE, CARD, what="probe", kind=KIND, needs={"embedder": dict})
        if embed is not None:
            check_card(card["embedder"], embed.card)
        return cls(_layers(folder, tensors), card, embed)


def _layers(folder: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> tuple[Layer, ...]:
    """The weights and biases of a saved probe, layer by layer. InputError when they do not fit one another."""
    count = len(tensors) // 2
    try:
        layers = tuple((tensors[f"{n}.weight"], tensors[f"{n}.bias"]) for n in range(count))
        fits = layers and all(len(w) == len(b) for w, b in layers) and len(layers[-1][1]) == 1
        fits = fits and all(a[0].shape[0] == b[0].shape[1] for a, b in pairwise(layers))
    except (KeyError, IndexError, TypeError) as e:
        raise InputError(f"{folder} holds no readable probe: it lacks {e}; fit it again") from e
    if not fits:
        shapes = ", ".join(str(w.shape) for w, _ in layers) or "none"
        raise InputError(f"{folder} holds no readable probe: its layers ({shapes}) do not fit; fit it again")
    return layers


def check_card(fitted: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """ModelError that shows the difference between the embedder a probe was fitted on and the one it is used with."""
    old, new = (json.loads(canonical_json(dict(c))) for c in (fitted, given))
    if lines := differences(old, new, "  {key}: fitted on {old}, given {new}"):
        head, do = "this probe was fitted on other embeddings:", "Use that embedder, or fit a new probe."
        raise ModelError("\n".join([head, *lines, do]))


@dataclass(frozen=True)
class _Fit:
    """The settings of a fit that go into the card."""

    loss: str
    beta: float
    alpha: float
    chunk: int
    others: int
    hidden: tuple[int, ...]
    optimizer: str
    folds: int
    seed: int

    def __post_init__(self) -> None:
        if self.loss not in PROBE_LOSSES:
            raise unknown("loss", self.loss, PROBE_LOSSES)
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.hidden and self.optimizer == "lbfgs":
            raise InputError(
                'optimizer "lbfgs" fits linear probes; with hidden layers use "adam", or "adamw" (the paper\'s)'
            )
        if not (
            self.beta > 0 and self.alpha > 0 and self.chunk >= 2 and self.folds >= 2 and min(self.hidden, default=1) > 0
        ):
            raise InputError(
                f"beta {self.beta:g} and alpha {self.alpha:g} must be above 0, chunk {self.chunk} and folds "
                f"{self.folds} at least 2, hidden widths {self.hidden} at least 1"
            )


def fit_probe(
    groups: Sequence[Group], embed: Embedder, *, loss: str = "ce", l2: float | Sequence[float] | None = None,
    hidden: Sequence[int] = (), beta: float = 1.0, alpha: float = 1.0, chunk: int = 10, others: int = 0, folds: int = 5,
    optimizer: str | None = None, schedule: Schedule | None = None, seed: int = 0,
) -> Probe:  # fmt: skip
    """Fit a probe to scored groups; the same data and seed give the same weights, in any order of the groups.

    loss: mse, ce (rewards in [0, 1]), pg (chunks of `chunk` completions; the paper's code trains at `beta` = 1),
    bt and ratio (all better-against-worse pairs of a prompt; `alpha`, `others` are the ratio loss's).
    l2: one strength, several to choose from by cross-validation over prompts in `folds` parts, None for 1, 0.1, 0.01,
    0.001; the criterion is the held-out reward of the completion of highest value. It penalises weights of standardised
    embeddings. hidden: () is linear; (256,) and (256, 256) are the paper's MLPs (ReLU).
    optimizer: "lbfgs" (linear, default), "adam" (MLPs, default: standardised rows, early stopping on a fifth of the
    prompts), "adamw" (the paper's protocol: raw rows, 150 epochs at 5e-5). For both `schedule` overrides the steps and
    l2, one number, their weight decay.
    Unscored completions and prompts with none scored are dropped and counted in the card. InputError when nothing can
    be learnt: no rewards, all equal, one prompt, k = 1 with pg, bt or ratio.
    """
    fit = _Fit(
        loss, beta, alpha, chunk, others, tuple(hidden), optimizer or ("adam" if hidden else "lbfgs"), folds, seed
    )
    kept, counts = scored(groups)
    labels = _labels(kept, loss)
    return _fit_rows(fit, l2, schedule, embed_rows(kept, embed(kept)), labels, counts, embed)


def fit_probe_pairs(
    pairs: Sequence[Pair], embed: Embedder, *, loss: str = "bt", l2: float | Sequence[float] | None = None,
    hidden: Sequence[int] = (), beta: float = 1.0, alpha: float = 1.0, folds: int = 5, optimizer: str | None = None,
    schedule: Schedule | None = None, seed: int = 0,
) -> Probe:  # fmt: skip
    """Fit a probe to given preferences with "bt" or "ratio"; every completion is embedded once.

    Otherwise as `fit_probe`. Cross-validation's criterion is the share of held-out prompts whose completion of highest
    value was once chosen.
    """
    if LOSS_UNITS.get(loss) != "pair":
        raise InputError(f"pairs are fitted with loss 'bt' or 'ratio', not {loss!r}; fit_probe takes scored groups")
    if not pairs:
        raise InputError(
            "no pairs: nothing can be learnt; make some with data.pairs, or check the filter that made these"
        )
    fit = _Fit(loss, beta, alpha, 10, 0, tuple(hidden), optimizer or ("adam" if hidden else "lbfgs"), folds, seed)
    groups, rows_of = groups_of_pairs(pairs)
    kept, counts = scored(groups)
    labels = replace(_labels(kept), pairs_B2=rows_of(kept))
    check_labels(labels, loss)
    return _fit_rows(fit, l2, schedule, embed_rows(kept, embed(kept)), labels, counts, embed)


def select_probe(
    groups: Sequence[Group], embeds: Mapping[str, Embedder], *, losses: Sequence[str] = ("mse", "ce", "pg"),
    l2: Sequence[float] | None = None, beta: float = 1.0, alpha: float = 1.0, chunk: int = 10, folds: int = 5,
    seed: int = 0,
) -> Probe:  # fmt: skip
    """The linear probe whose embedding, loss and l2 give the highest held-out reward, cross-validated over prompts.

    embeds: name -> embedder, {"layer16": ..., "layer20": ...}, simplest first: of equals the stronger l2, then the
    earlier embedding and loss win. All rows of the table are in card["selection"]; its best figure is optimistic, being
    the best of many: judge the probe on other prompts.
    """
    if not embeds or not losses:
        raise InputError("select_probe needs at least one embedder and one loss")
    kept, counts = scored(groups)
    grid = l2_grid(l2)
    best: tuple[Any, ...] | None = None
    table = []
    for name, embed in embeds.items():
        X_RD = embed_rows(kept, embed(kept))
        for loss in losses:
            fit = _Fit(loss, beta, alpha, chunk, 0, (), "lbfgs", folds, seed)
            problem = _problem(fit, X_RD, _labels(kept, loss))
            for strength, reward in cross_validate(problem, grid, folds, seed, STOP):
                table.append({"embedder": name, "loss": loss, "l2": strength, "reward": reward})
                if best is None or (reward, strength) > (best[0], best[1]):
                    best = (reward, strength, fit, problem, name, embed)
    assert best is not None
    _, strength, fit, problem, name, embed = best
    probe = _linear(fit, problem, strength, (), counts, embed)
    return replace(probe, card={**probe.card, "selected": name, "selection": table})


def _labels(kept: Sequence[Group], loss: str | None = None) -> Labels:
    reward = [r.value for g in kept for r in g.rewards]
    labels = make_labels(reward, [g.prompt.id for g in kept for _ in g.rewards])
    if loss is not None:
        if loss not in PROBE_LOSSES:
            raise unknown("loss", loss, PROBE_LOSSES)
        check_labels(labels, loss)
    return labels


def _fit_rows(
    fit: _Fit,
    l2: Any,
    schedule: Schedule | None,
    X_RD: npt.NDArray[Any],
    labels: Labels,
    counts: Counts,
    embed: Embedder,
) -> Probe:
    if fit.optimizer == "lbfgs":
        grid = l2_grid(l2)
        problem = _problem(fit, X_RD, labels)
        cv: CV = cross_validate(problem, grid, fit.folds, fit.seed, STOP) if len(grid) > 1 else ()
        return _linear(fit, problem, best_l2(cv, max(grid)), cv, counts, embed)
    if l2 is not None and not isinstance(l2, int | float):
        raise InputError(f"optimizer {fit.optimizer!r} takes one l2 (its weight decay), not {l2!r}")
    chosen = schedule or (minibatch.PAPER if fit.optimizer == "adamw" else minibatch.MLP)
    if l2 is not None:
        chosen = replace(chosen, weight_decay=float(l2))
    result = fit_minibatch(
        row_blocks(X_RD, len(X_RD)), labels, fit.loss, chosen, hidden=fit.hidden,
        settings={"beta": fit.beta, "alpha": fit.alpha}, chunk=fit.chunk, others=fit.others, seed=fit.seed,
    )  # fmt: skip
    facts = {"steps": result.steps, "epochs": result.epochs, "objective": result.objective}
    return _probe(fit, result.layers, labels, counts, embed, X_RD, {"schedule": asdict(chosen)}, facts)


def _problem(fit: _Fit, X_RD: npt.NDArray[Any], labels: Labels) -> Problem:
    units = make_units(labels, fit.loss, chunk=fit.chunk, others=fit.others, seed=fit.seed, draws=CHUNK_DRAWS)
    settings = {"beta": fit.beta, "alpha": fit.alpha}
    return Problem.of(row_blocks(X_RD, len(X_RD)), labels, fit.loss, units, settings)


def _linear(fit: _Fit, problem: Problem, l2: float, cv: CV, counts: Counts, embed: Embedder) -> Probe:
    result = problem.fit(l2, stop_for(l2), cv)
    layers = ((result.weight_D[None, :], np.array([result.bias], dtype=np.float32)),)
    facts: dict[str, Any] = {
        "objective": result.objective, "iterations": result.iterations, "converged": result.converged,
    }  # fmt: skip
    if cv:
        facts["cross_validation"] = [{"l2": strength, "reward": reward} for strength, reward in cv]
    assert problem.rows.array is not None
    return _probe(fit, layers, problem.labels, counts, embed, problem.rows.array.numpy(), {"l2": l2}, facts)


def _probe(
    fit: _Fit, layers: tuple[Layer, ...], labels: Labels, counts: Counts, embed: Embedder, X_RD: npt.NDArray[Any],
    extra: Mapping[str, Any], facts: dict[str, Any],
) -> Probe:  # fmt: skip
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(fit).items()}
    card = {"kind": KIND, **settings, **extra, "embedder": json.loads(canonical_json(dict(embed.card)))}
    probe = Probe(layers, card, embed)
    values = probe.values(X_RD)
    metrics = {
        **facts,
        "train_reward": float(np.mean(chosen_reward(values, labels))),
        "train_pass1": float(np.mean(chosen_reward(np.zeros(len(values)), labels))),
        "train_oracle": float(np.mean(chosen_reward(labels.reward_R, labels))),
    }
    return replace(probe, card={**card, **asdict(counts), "metrics": metrics, "trimtab": __version__})
