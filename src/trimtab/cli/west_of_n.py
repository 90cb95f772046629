"""`trimtab west-of-n`: a few labelled groups and many samples of a run directory to a better reward model.

trimtab west-of-n runs/demo --labelled train --pool more --reward chain_sum --layer 20 --out runs/won --judge test
"""

from typing import Annotated, Any

import typer

from trimtab.cli.options import Device, Json, Seed, emit

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
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """West-of-N self-training: teacher, best against worst, filters, student, rounds. Run again to continue."""
    from trimtab.jobs.inputs import Source
    from trimtab.jobs.west_of_n import Kept, States, improve

    done = improve(
        run, pool=pool, out=out,
        labelled=Source(pairs, "" if pairs else labelled, reward, make, chat=True),
        teacher=teacher, student=student, states=States(tuple(layer or ()), pooling, model, device, l2), n=n,
        pairing=pairing, kept=Kept(confidence, logprob, normalise), ratio=ratio, rounds=rounds, judge=judge, seed=seed,
    )  # fmt: skip
    counts = [dict(r.counts) for r in done.result.rounds]
    facts: dict[str, Any] = {"labelled": done.labelled, "rounds": counts, "out": out}
    lines = [f"{done.labelled} labelled pairs"]
    lines += [f"round {n}: " + ", ".join(f"{v} {k}" for k, v in row.items()) for n, row in enumerate(counts, 1)]
    if judge:
        facts["judged"] = [
            vars(r) | {"mean": list(r.mean[:3]), "over_base": list(r.over_base[:3])} for r in done.judged
        ]
    lines += [*map(str, done.judged), f"student: {out}/round{rounds}/student"]
    emit(facts, "\n".join(lines), json)
