"""Every strategy among stored completions, judged by cross-validation over prompts: the reranker's table.

All that is learnt, hyper-parameters included, is learnt on the other folds' prompts; folds are drawn anew for each seed
and a prompt's reward is the mean over seeds. Differences are paired over prompts with a 95 % bootstrap interval.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation import strategies as null_strategies
from trimtab.evaluation.metrics import Interval, mean_interval, paired_bootstrap
from trimtab.learners import fit_probe, fit_reranker
from trimtab.learners.completion.reranker.cues import agreement, likeness, same_text
from trimtab.types import Group, Reward, RewardFn

Chosen = dict[str, np.ndarray]
"""Strategy -> reward of what it takes from each prompt, shape (P,), NaN where it has none."""


@dataclass(frozen=True)
class View:
    """Vectors that are already there, by prompt id, as an Embedder."""

    name: str
    vectors: Mapping[str, np.ndarray]

    @property
    def card(self) -> dict[str, Any]:
        return {"kind": "stored view", "name": self.name}

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [self.vectors[g.prompt.id] for g in groups]


@dataclass(frozen=True)
class Known:
    """Values that are already there, by prompt id, as a RewardFn."""

    name: str
    values: Mapping[str, np.ndarray] = field(repr=False)

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        return [[Reward(float(v)) for v in self.values[g.prompt.id]] for g in groups]


def taken(values: Sequence[Any], groups: Sequence[Group]) -> np.ndarray:
    """Reward of the highest value of each group, ties averaged."""
    out = []
    for v, g in zip(values, groups, strict=True):
        value_N = np.asarray(v, float)
        out.append(float(np.nanmean(g.reward_N[value_N >= value_N.max() - 1e-12])))
    return np.array(out)


def nulls(groups: Sequence[Group], same: Callable[[str], Any] | None) -> Chosen:
    """What needs no fit: pass@1, longest, mean and sum log-prob, majority vote (exact text without an extractor),
    likeness to the others, oracle."""
    out: Chosen = {"pass@1": np.array([np.nanmean(g.reward_N) for g in groups])}
    for strategy in null_strategies(groups, {}, extract=same)[0]:
        out[strategy.name] = np.array(
            [strategy(p, np.arange(len(g.completions))[None])[0] @ g.reward_N for p, g in enumerate(groups)]
        )
    if same is None:
        out["majority of equal texts"] = taken([agreement(g, same_text) for g in groups], groups)
    out["most like the others"] = taken([likeness(g, same_text) for g in groups], groups)
    out["oracle"] = np.array([np.nanmax(g.reward_N) for g in groups])
    return out


def learners(
    views: Mapping[str, View], same: Callable[[str], Any] | None, probes: Mapping[str, View],
    signals: Mapping[str, RewardFn] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Name -> a function of training groups that gives a RewardFn. `probes`: loss -> the one view that the
    paper's kind of probe reads. `signals`: rewards that rerankers may read beside their cues; the same reranker without
    them has a row of its own."""
    kwargs: dict[str, Any] = {} if same is None else {"same": same}
    out: dict[str, Any] = {
        f"probe {loss} on {view.name}": lambda train, loss=loss, view=view: fit_probe(
            train, view, loss=loss, l2=(1.0, 0.1)
        )
        for loss, view in probes.items()
    }
    out["reranker: cues alone"] = lambda train: fit_reranker(train, None, **kwargs)
    out["reranker: log-prob and states"] = lambda train: fit_reranker(
        train, views, cues=[("mean_logprob",)], pool=(False,), **kwargs
    )
    heard = kwargs
    if signals:
        for name in signals:
            out[f"reranker: log-prob and {name}"] = lambda train, name=name: fit_reranker(
                train, None, cues=[("mean_logprob",)], pool=(False,), signals={name: signals[name]}
            )
        heard = {**kwargs, "signals": signals}
        out["reranker without signals"] = lambda train: fit_reranker(train, views, **kwargs)
        out["reranker: cues and signals"] = lambda train: fit_reranker(train, None, **heard)
    out["reranker"] = lambda train: fit_reranker(train, views, **heard)
    out["reranker, margin 0"] = lambda train: fit_reranker(train, views, margin=0.0, **heard)
    return out


def cross_validated(
    groups: Sequence[Group], fits: Mapping[str, Any], *, seeds: int, folds: int = 5, say: Callable[[str], None] = print
) -> tuple[Chosen, dict[str, list[str]]]:
    """The rewards of what each fitted strategy takes on prompts it was not fitted on, and the forms rerankers chose."""
    out = {name: np.zeros(len(groups)) for name in fits}
    forms: dict[str, list[str]] = {name: [] for name in fits}
    for seed in range(seeds):
        fold_P = np.random.default_rng(seed).permutation(len(groups)) % folds
        for name, fit in fits.items():
            for fold in range(folds):
                test = np.flatnonzero(fold_P == fold)
                try:
                    fitted = fit([g for g, f in zip(groups, fold_P, strict=True) if f != fold])
                except InputError as e:
                    say(f"{name}, fold {fold}: {e}")
                    out[name][test] += np.nan
                    continue
                values = [[r.value for r in row] for row in fitted([groups[i] for i in test])]
                out[name][test] += taken(values, [groups[i] for i in test]) / seeds
                if hasattr(fitted, "form"):
                    form = fitted.form
                    forms[name].append(f"{'+'.join(form.cues)} | {form.states} l2 {form.l2:g}{' pooled' * form.pool}")
            say(f"seed {seed}: {name} {np.nansum(out[name]) * seeds / (seed + 1) / len(groups):.3f}")
    return out, {k: v for k, v in forms.items() if v}


def table(chosen: Chosen, against: Sequence[str], n: int) -> tuple[str, list[dict[str, Any]]]:
    """Rows of rewards with paired differences, as text and for JSON."""
    rows, lines = [], [f"{'chosen by':42s}{'reward':26s}" + "".join(f"{'minus ' + a:30s}" for a in against)]
    for name, reward_P in chosen.items():
        own = mean_interval(reward_P)
        gaps = {a: paired_bootstrap(reward_P, chosen[a]) for a in against if a in chosen and a != name}
        rows.append({"name": name, "reward": own._asdict(), **{f"minus_{a}": g._asdict() for a, g in gaps.items()}})
        cells = "".join(f"{_signed(gaps[a]) if a in gaps else '':30s}" for a in against)
        lines.append(f"{name:42s}{own!s:26s}{cells}")
    return "\n".join([*lines, f"{n} prompts; 95 % paired bootstrap intervals over prompts"]), rows


def _signed(x: Interval) -> str:
    return f"{x.mean:+.3f} [{x.lower:+.3f}, {x.upper:+.3f}]"
