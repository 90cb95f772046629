"""`trimtab west-of-n`: a few labelled groups and many samples of a run directory to a better reward model.

trimtab west-of-n runs/demo --labelled train --pool more --reward chain_sum --layer 20 --out runs/won --judge test
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer

from trimtab.cli.options import Device, Json, emit
from trimtab.types import Embedder, Group

KINDS = "probe, pairwise (teacher only), or the name or folder of a language model to train"


def west_of_n(
    run: Annotated[str, typer.Argument(help="Run directory: the store with samples, rewards and states.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the teachers, pairs and students.")],
    pool: Annotated[str, typer.Option("--pool", help="Completions to label (their rewards are not read).")],
    labelled: Annotated[
        str, typer.Option("--labelled", help="Completions whose rewards make the labelled pairs.")
    ] = "",
    reward: Annotated[
        str, typer.Option("--reward", help="Reward of --labelled and --judge, as `score` named it.")
    ] = "",
    pairs: Annotated[
        str, typer.Option("--pairs", help="Labelled pairs from a file or another run instead (needs --model).")
    ] = "",
    make: Annotated[str, typer.Option("--make", help="Labelled pairs from rewards: best_vs_worst, all_pairs, ...")] = (
        "right_vs_wrong"
    ),
    teacher: Annotated[str, typer.Option("--teacher", help=KINDS)] = "pairwise",
    student: Annotated[str, typer.Option("--student", help=KINDS)] = "probe",
    layer: Annotated[list[int] | None, typer.Option("--layer", help="Stored layers that probes read.")] = None,
    pooling: Annotated[str, typer.Option("--pooling", help="last, text or mean.")] = "last",
    model: Annotated[
        str, typer.Option("--model", help="Embed with this model what the store holds no states of.")
    ] = "",
    device: Device = None,
    n: Annotated[int | None, typer.Option("--n", help="First n completions a prompt; all by default.")] = None,
    pairing: Annotated[str, typer.Option("--pairing", help="best_vs_worst; nulls: best_vs_random, first_two.")] = (
        "best_vs_worst"
    ),
    confidence: Annotated[float, typer.Option("--confidence", help="Keep pairs above this quantile.")] = 0.0,
    logprob: Annotated[float, typer.Option("--logprob", help="The same for the joint log-likelihood.")] = 0.0,
    normalise: Annotated[
        str, typer.Option("--normalise", help="Of the log-likelihood: mean (a token) or sum.")
    ] = "mean",
    ratio: Annotated[float, typer.Option("--ratio", help="Synthetic to labelled pairs in the mix.")] = 1.0,
    rounds: Annotated[int, typer.Option("--rounds")] = 1,
    l2: Annotated[float, typer.Option("--l2", help="Of the probes.")] = 0.1,
    judge: Annotated[str, typer.Option("--judge", help="Scored completions that compare base and student.")] = "",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    json: Json = False,
) -> None:
    """West-of-N self-training: teacher, best against worst, filters, student, rounds. Run again to continue."""
    from trimtab.cli import pairs as naming
    from trimtab.jobs import checks
    from trimtab.learners.completion.west_of_n.west_of_n import west_of_n as learn

    store = naming.open_run(run)
    checks.writable(out)
    for kind in {teacher, student} - {"probe", "pairwise"}:
        checks.local_model(kind)
    embed = _embedder(store, tuple(layer or ()), pooling, model, device)
    base = _base(store, labelled, reward, pairs, make, pool)
    samples, judges = store.groups(pool, None), naming.scored_groups(run, judge, reward) if judge else []
    _apart(judges, {p.prompt.id for p in base} | {g.prompt.id for g in samples})
    result = learn(
        base, samples, out, teacher=_fit(teacher, embed, l2, seed, True),
        student=_fit(student, embed, l2, seed, False), n=n, pairing=pairing, confidence=confidence, logprob=logprob,
        normalise=normalise, ratio=ratio, rounds=rounds, seed=seed,
    )  # fmt: skip
    facts: dict[str, Any] = {"labelled": len(base), "rounds": [dict(r.counts) for r in result.rounds], "out": out}
    lines = [f"{len(base)} labelled pairs"]
    for number, counts in enumerate(facts["rounds"], 1):
        lines.append(f"round {number}: " + ", ".join(f"{v} {k}" for k, v in counts.items()))
    if judge:
        rows, text = _judged(judges, {"base": result.base, "student": result.student})
        facts["judged"], lines = rows, [*lines, text]
    emit(facts, "\n".join([*lines, f"student: {out}/round{rounds}/student"]), json)


def _apart(judges: Sequence[Group], learnt_from: set[str]) -> None:
    from trimtab.errors import InputError

    both = [g.prompt.id for g in judges if g.prompt.id in learnt_from]
    if both:
        raise InputError(
            f"{len(both)} of the {len(judges)} prompts of --judge are learnt from too ({both[0]!r}, ...): a student "
            "must be judged on other prompts"
        )


@dataclass(frozen=True)
class AnySplit:
    """The stored vectors of whichever split a group's prompt belongs to; `other` embeds what is in none."""

    parts: tuple[Any, ...]
    other: Any = None

    @property
    def card(self) -> dict[str, Any]:
        return (self.parts[0] if self.parts else self.other).card

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray[Any, Any]]:
        from trimtab.errors import InputError

        out: dict[int, Any] = {}
        for part in self.parts:  # one call a table: it is read once
            ids = part.store.ids(part.table)
            sample_ids = part.store.sample_ids(part.name, groups)
            mine = [i for i, row in enumerate(sample_ids) if i not in out and ids.issuperset(row)]
            if mine:
                out |= zip(mine, part([groups[i] for i in mine]), strict=True)
        rest = [i for i in range(len(groups)) if i not in out]
        if rest and self.other is None:
            raise InputError(
                f"prompt {groups[rest[0]].prompt.id!r}: its completions have no stored states; run `trimtab embed`, or "
                "give --model"
            )
        if rest:
            out |= zip(rest, self.other([groups[i] for i in rest]), strict=True)
        return [out[i] for i in range(len(groups))]


def _embedder(store: Any, layers: tuple[int, ...], pooling: str, model: str, device: str | None) -> Embedder:
    from trimtab.embeddings import HiddenStates, Stored
    from trimtab.errors import InputError

    keys = tuple(f"layer{n}.{pooling}" for n in layers) or None
    tables = [t for t in store.tables("embeddings") if t.count("/") == 1]
    parts = tuple(Stored(None, store, t.split("/")[1], keys=keys) for t in tables)
    if not parts and not model:
        raise InputError(f"{store.path} holds no embeddings: run `trimtab embed` first, or give --model and --layer")
    return AnySplit(parts, HiddenStates(model, layers, pooling, device=device) if model else None)


def _base(store: Any, labelled: str, reward: str, pairs: str, make: str, pool: str) -> list[Any]:
    """The labelled pairs: of a file or another run, or made of scored completions other than those to label."""
    from trimtab.cli import pairs as naming
    from trimtab.errors import InputError

    if pairs:
        return naming.load(pairs, chat=True, make=make, reward=reward)
    scored = [n for n in store.names("completions") if n != pool and store.names("rewards", n)]
    if not labelled and len(scored) != 1:
        raise InputError(
            f"name the labelled completions with --labelled ({', '.join(scored) or 'none are scored yet'})"
        )
    return naming.made(naming.scored_groups(str(store.path), labelled or scored[0], reward), make, str(store.path))


def _fit(kind: str, embed: Embedder, l2: float, seed: int, teacher: bool) -> Any:
    from trimtab.errors import InputError
    from trimtab.learners.completion.west_of_n.west_of_n import PairwiseFit, ProbeFit, RewardModelFit
    from trimtab.rewards.reward_model import RewardModel

    if kind == "probe":
        return ProbeFit(embed, l2=l2, seed=seed)
    if kind == "pairwise":
        if not teacher:
            raise InputError("a student gives one reward a completion: take probe or a model, not pairwise")
        return PairwiseFit(embed, l2=l2, seed=seed)
    return RewardModelFit(kind, RewardModel, {"seed": seed})


def _judged(groups: Sequence[Group], scorers: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Accuracy within prompts and best-of-N reward of every scorer, and the difference to the first."""
    from trimtab.evaluation.metrics import expected_reward, mean_interval, paired_bootstrap, ranking_accuracy

    values = {k: [np.array([r.value for r in row]) for row in fn(groups)] for k, fn in scorers.items()}
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, list[float]]] = {}
    for name, rows in values.items():
        both = [(v, g.reward_N) for v, g in zip(rows, groups, strict=True)]
        found[name] = {
            "accuracy": [ranking_accuracy(v, r) for v, r in both],
            "best of N": [expected_reward(v, r, len(v), rng=rng).reward for v, r in both],
        }
    first, out, lines = next(iter(found)), [], []
    for name, measures in found.items():
        for measure, value_P in measures.items():
            mine, gain = mean_interval(value_P), paired_bootstrap(value_P, found[first][measure])
            out.append({"scorer": name, "measure": measure, "mean": list(mine[:3]), "over_base": list(gain[:3])})
            lines.append(f"{name:8} {measure:10} {mine}" + ("" if name == first else f"   over {first} {gain}"))
    return out, "\n".join(lines)
