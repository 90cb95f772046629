"""A run's few labelled groups and many samples to a better reward model: West-of-N from names to a judged student."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.metrics import Interval, expected_reward, mean_interval, paired_bootstrap, ranking_accuracy
from trimtab.jobs import checks
from trimtab.jobs.inputs import Source, open_run, pairs, scored_groups
from trimtab.learners.completion.west_of_n.west_of_n import Fit, PairwiseFit, ProbeFit, RewardModelFit, WestOfN
from trimtab.learners.completion.west_of_n.west_of_n import west_of_n as learn
from trimtab.store import Store
from trimtab.types import Embedder, Group, Pair, RewardFn


@dataclass(frozen=True)
class States:
    """The vectors that probes read: stored ones of these layers, and `model`'s where the store holds none."""

    layers: tuple[int, ...] = ()
    pooling: str = "last"
    model: str = ""
    device: str | None = None
    l2: float = 0.1
    """Of the probes that read them."""


@dataclass(frozen=True)
class Kept:
    """Which pseudo-labelled pairs are kept: those above quantiles of confidence and of joint log-likelihood."""

    confidence: float = 0.0
    logprob: float = 0.0
    normalise: str = "mean"


@dataclass(frozen=True)
class JudgedRow:
    """A scorer's mean on the judging prompts, and its difference to the base's."""

    scorer: str
    measure: str
    mean: Interval
    over_base: Interval

    def __str__(self) -> str:
        over = "" if self.scorer == "base" else f"   over base {self.over_base}"
        return f"{self.scorer:8} {self.measure:10} {self.mean}{over}"


@dataclass(frozen=True)
class Improved:
    """How many labelled pairs there were, what was learnt of them, and how base and student do on other prompts."""

    labelled: int
    result: WestOfN
    judged: tuple[JudgedRow, ...]


def improve(
    run: str, *, pool: str, out: str | Path, labelled: str | Source | Sequence[Pair] = "",
    teacher: str = "pairwise", student: str = "probe", states: States = States(), n: int | None = None,
    pairing: str = "best_vs_worst", kept: Kept = Kept(), ratio: float = 1.0, rounds: int = 1, judge: str = "",
    seed: int = 0,
) -> Improved:  # fmt: skip
    """West-of-N self-training on a run directory; the same call again, after a kill too, goes on where it was.

    pool        the completions to label; their rewards are not read.
    labelled    other completions of the run (right against wrong), a source (without `data`: of the run), or pairs.
    teacher     probe, pairwise, or the name or folder of a language model to train; student: the same without pairwise.
    judge       scored completions of the run, on other prompts, that compare base and student.
    InputError, SettingsChanged as `learners.west_of_n`, whose settings the others are.
    """
    if isinstance(labelled, str):
        labelled = Source("", labelled, make="right_vs_wrong")
    store = open_run(run)
    checks.writable(out)
    for kind in {teacher, student} - {"probe", "pairwise"}:
        checks.local_model(kind)
    embed = _embedder(store, states)
    base = _base(store, labelled, pool)
    reward = labelled.reward if isinstance(labelled, Source) else ""
    samples, judges = store.groups(pool, None), scored_groups(Source(run, judge, reward)) if judge else []
    _apart(judges, {p.prompt.id for p in base} | {g.prompt.id for g in samples})
    result = learn(
        base, samples, out, teacher=_fit(teacher, embed, states.l2, seed, True),
        student=_fit(student, embed, states.l2, seed, False), n=n, pairing=pairing, ratio=ratio, rounds=rounds,
        seed=seed, **vars(kept),
    )  # fmt: skip
    return Improved(len(base), result, tuple(_judged(judges, result.base, result.student) if judge else ()))


def _apart(judges: Sequence[Group], learnt_from: set[str]) -> None:
    both = [g.prompt.id for g in judges if g.prompt.id in learnt_from]
    if both:
        raise InputError(
            f"{len(both)} of the {len(judges)} prompts of --judge are learnt from too ({both[0]!r}, ...): a student "
            "must be judged on other prompts"
        )


def _embedder(store: Store, states: States) -> Embedder:
    from trimtab.embeddings import HiddenStates, Stored
    from trimtab.embeddings.any_split import AnySplit

    keys = tuple(f"layer{n}.{states.pooling}" for n in states.layers) or None
    tables = [t for t in store.tables("embeddings") if t.count("/") == 1]
    parts = tuple(Stored(None, store, t.split("/")[1], keys=keys) for t in tables)
    if not parts and not states.model:
        raise InputError(f"{store.path} holds no embeddings: run `trimtab embed` first, or give --model and --layer")
    live = HiddenStates(states.model, states.layers, states.pooling, device=states.device) if states.model else None
    return AnySplit(parts, live)


def _base(store: Store, labelled: Source | Sequence[Pair], pool: str) -> list[Pair]:
    """The labelled pairs: given, of a file or another run, or made of scored completions other than those to label."""
    if not isinstance(labelled, Source) or labelled.data:
        return pairs(labelled)
    scored = [n for n in store.names("completions") if n != pool and store.names("rewards", n)]
    if not labelled.split and len(scored) != 1:
        raise InputError(
            f"name the labelled completions with --labelled ({', '.join(scored) or 'none are scored yet'})"
        )
    return pairs(replace(labelled, data=str(store.path), split=labelled.split or scored[0]))


def _fit(kind: str, embed: Embedder, l2: float, seed: int, teacher: bool) -> Fit:
    from trimtab.rewards.reward_model import RewardModel

    if kind == "probe":
        return ProbeFit(embed, l2=l2, seed=seed)
    if kind == "pairwise":
        if not teacher:
            raise InputError("a student gives one reward a completion: take probe or a model, not pairwise")
        return PairwiseFit(embed, l2=l2, seed=seed)
    return RewardModelFit(kind, RewardModel, {"seed": seed})


def _judged(groups: Sequence[Group], base: RewardFn, student: RewardFn) -> list[JudgedRow]:
    """Accuracy within prompts and best-of-N reward of both, and the difference to the base."""
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, list[float]]] = {}
    for name, fn in (("base", base), ("student", student)):
        both = [(np.array([r.value for r in row]), g.reward_N) for row, g in zip(fn(groups), groups, strict=True)]
        found[name] = {
            "accuracy": [ranking_accuracy(v, r) for v, r in both],
            "best of N": [expected_reward(v, r, len(v), rng=rng).reward for v, r in both],
        }
    return [
        JudgedRow(name, measure, mean_interval(value_P), paired_bootstrap(value_P, found["base"][measure]))
        for name, measures in found.items()
        for measure, value_P in measures.items()
    ]
