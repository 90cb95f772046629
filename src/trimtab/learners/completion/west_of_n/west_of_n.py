"""Labelled PAIRS and unlabelled GROUPS to a better reward model: West-of-N self-training, in rounds, resumable.

Pace et al. 2024 (arXiv 2401.12086). A teacher fitted on labelled pairs picks best and worst of N samples a prompt, the
filters keep the surest, and a pointwise student is fitted on a 1:1 mix. The next round's teacher is fitted on that mix.
Teacher and student are whatever the two callables fit: probes on stored hidden states, pairwise probes, reward models.
Every stage is one folder that appears whole, so that a killed run goes on where it was. It does not sample or judge.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trimtab.errors import InputError, SettingsChanged, refuse_changed
from trimtab.json_file import NUMBER, Kinds, parse_json, read_json, read_lines
from trimtab.learners.completion.probe.pairwise import PairwiseProbe, fit_pairwise
from trimtab.learners.completion.probe.probe import Probe, fit_probe_pairs
from trimtab.learners.completion.west_of_n.pseudo_pairs import PseudoPair, filter_pairs, mix, pseudo_pairs
from trimtab.publish import alone_in, publish_text
from trimtab.types import Completion, Embedder, Group, Pair, RewardFn, canonical_json, describe, fingerprint

CARD, PAIRS = "west_of_n.json", "pairs.jsonl"
_AGAIN = "delete this file and run the same command again: its pairs are made anew"
_PAIR: Kinds = {
    "prompt_id": str, "chosen_key": list, "rejected_key": list, "margin": NUMBER, "confidence": NUMBER,
    "logprob": (*NUMBER, type(None)), "mean_logprob": (*NUMBER, type(None)),
}  # fmt: skip


class Fit(Protocol):
    """Pairs to a `RewardFn` or `Preference` kept in `folder`, which appears whole; called again, it loads."""

    def __call__(self, pairs: Sequence[Pair], folder: Path, /) -> Any: ...


@dataclass(frozen=True)
class ProbeFit:
    """Fits a Bradley-Terry probe on a frozen backbone; see `fit_probe_pairs` for the settings."""

    embed: Embedder = field(repr=False)
    l2: float | tuple[float, ...] | None = 0.1
    hidden: tuple[int, ...] = ()
    seed: int = 0

    def __call__(self, pairs: Sequence[Pair], folder: Path) -> Probe:
        if not folder.exists():
            fitted = fit_probe_pairs(pairs, self.embed, l2=self.l2, hidden=self.hidden, seed=self.seed)
            fitted.save(folder)
        return Probe.load(folder, self.embed)


@dataclass(frozen=True)
class PairwiseFit:
    """Fits a pairwise probe, the paper's kind of teacher; see `fit_pairwise`."""

    embed: Embedder = field(repr=False)
    hidden: int = 64
    l2: float = 0.1
    steps: int = 400
    seed: int = 0

    def __call__(self, pairs: Sequence[Pair], folder: Path) -> PairwiseProbe:
        if not folder.exists():
            fitted = fit_pairwise(pairs, self.embed, hidden=self.hidden, l2=self.l2, steps=self.steps, seed=self.seed)
            fitted.save(folder)
        return PairwiseProbe.load(folder, self.embed)


@dataclass(frozen=True)
class RewardModelFit:
    """Trains a reward model with `train_reward_model(model=..., **settings)`; `load` makes the trained folder a
    `RewardFn` (`rewards.RewardModel`)."""

    model: str
    load: Callable[[str], RewardFn] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, pairs: Sequence[Pair], folder: Path) -> RewardFn:
        from trimtab.learners.completion.reward_model import train_reward_model

        return self.load(str(train_reward_model(pairs, model=self.model, out=folder, **self.settings).path))


@dataclass(frozen=True)
class Round:
    """One round: its teacher, the pairs it made and kept, its student, and the counts."""

    teacher: Any
    made: tuple[PseudoPair, ...] = field(repr=False)
    kept: tuple[PseudoPair, ...] = field(repr=False)
    student: RewardFn
    counts: Mapping[str, int]


@dataclass(frozen=True)
class WestOfN:
    """The student of the last round, all rounds, and `base`: the same kind of student on labelled pairs alone."""

    student: RewardFn
    base: RewardFn
    rounds: tuple[Round, ...]


def west_of_n(
    base: Sequence[Pair], groups: Sequence[Group] | Callable[[int], Sequence[Group]], out: str | Path, *,
    teacher: Fit, student: Fit, n: int | None = None, pairing: str = "best_vs_worst", how: str = "auto",
    confidence: float = 0.0, logprob: float = 0.0, normalise: str = "mean", ratio: float = 1.0, rounds: int = 1,
    seed: int = 0,
) -> WestOfN:  # fmt: skip
    """West-of-N self-training in `out`: `base/` and for every round `round1/teacher`, `round1/pairs.jsonl`,
    `round1/student`. The same call again, after a kill too, computes only what is missing and returns the same.

    groups      unlabelled samples (rewards are ignored), or a function of the round, for fresh samples; `n` takes the
                first n completions of each. Prompts that judge the result must not be among them.
    pairing     see `pseudo_pairs`; how: the tournament. confidence, logprob, normalise: see `filter_pairs`.
    ratio       synthetic to labelled pairs in the student's mix (the paper: 1).
    InputError when no pair is left; SettingsChanged when `out` holds a run with other settings, pairs or groups.
    """
    out = Path(out)
    if not base:
        raise InputError("no labelled pairs: the teacher must learn from some")
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, it is {rounds}")
    settings = {k: v for k, v in locals().items() if k not in ("base", "groups", "out", "teacher", "student")}
    settings |= {"teacher": _named(teacher), "student": _named(student), "base": fingerprint(list(base))}
    with alone_in(out):
        _begin(out, settings)
        return _run(base, groups, out, teacher, student, settings)


def _run(
    base: Sequence[Pair], groups: Sequence[Group] | Callable[[int], Sequence[Group]], out: Path, teacher: Fit,
    student: Fit, settings: Mapping[str, Any],
) -> WestOfN:  # fmt: skip
    n, seed, pairing, how = (settings[k] for k in ("n", "seed", "pairing", "how"))
    filters = {k: settings[k] for k in ("confidence", "logprob", "normalise")}
    baseline = student(list(base), out / "base")
    mixed, done = list(base), []
    for number in range(1, settings["rounds"] + 1):
        folder = out / f"round{number}"
        folder.mkdir(exist_ok=True)
        given: Sequence[Group] = groups(number) if callable(groups) else groups
        sampled = [some for g in given if (some := _some(g, n)).completions]
        taught = teacher(mixed, folder / "teacher")
        made, counts = _pairs(folder / PAIRS, sampled, taught, pairing, how, seed)
        kept = filter_pairs(made, **filters)
        if not kept:
            raise InputError(
                f"round {number}: no pair is left of {counts['groups']} groups ({counts['undecided']} undecided); "
                "take more samples a prompt, lower quantiles, or a teacher that can tell completions apart"
            )
        mixed = mix(base, [p.pair for p in kept], settings["ratio"], seed=seed)
        fitted = student(mixed, folder / "student")
        counts |= {"made": len(made), "kept": len(kept), "mixed": len(mixed)}
        done.append(Round(taught, tuple(made), tuple(kept), fitted, counts))
    return WestOfN(done[-1].student, baseline, tuple(done))


def _named(fit: Fit) -> list[Any]:
    """What identifies a fit: its own fields and its embedder's card."""
    embed = getattr(fit, "embed", None)
    return [describe(fit), dict(embed.card) if embed is not None else None]


def _some(group: Group, n: int | None) -> Group:
    if n is not None and len(group.completions) < n:
        raise InputError(f"prompt {group.prompt.id!r} has {len(group.completions)} completions, n = {n} are asked for")
    return Group(group.prompt, tuple(c for c in group.completions if not c.failed)[:n])


def _pairs(
    file: Path, groups: Sequence[Group], teacher: Any, pairing: str, how: str, seed: int
) -> tuple[list[PseudoPair], dict[str, int]]:
    """Pairs of `file`, made first if it is not there. A row is TRL's with what made it; the last row holds counts."""
    data = fingerprint([[g.prompt.id, [_key(c) for c in g.completions]] for g in groups])
    if not file.exists():
        made, counts = pseudo_pairs(groups, teacher, pairing=pairing, how=how, seed=seed)
        rows = [*map(_row, made), {"counts": asdict(counts), "groups": data}]
        publish_text(file, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    rows = _rows(file)
    if rows[-1]["groups"] != data:
        raise SettingsChanged(f"{file} was made from other samples; use another directory, or delete it")
    known = {(g.prompt.id, *_key(c)): (g, c) for g in groups for c in g.completions}
    made = []
    for number, r in enumerate(rows[:-1], 1):
        keys = [(r["prompt_id"], *r[side]) for side in ("chosen_key", "rejected_key")]
        if lost := [k for k in keys if k not in known]:
            raise InputError(f"{file}:{number}: no such sample, {lost[0]}: was it edited? {_AGAIN}")
        (g, chosen), (_, rejected) = (known[k] for k in keys)
        made.append(
            PseudoPair(
                Pair(g.prompt, chosen, rejected, r["margin"]),
                r["confidence"],
                *(float("nan") if r[k] is None else r[k] for k in ("logprob", "mean_logprob")),
            )
        )
    return made, dict(rows[-1]["counts"])


def _rows(file: Path) -> list[dict[str, Any]]:
    """The lines of a round's pairs; the last one holds the counts. InputError for a line that is none."""
    lines = read_lines(file, "a round's pairs", do=_AGAIN)
    if not lines:
        raise InputError(f"{file}: is empty; {_AGAIN}")
    kinds = [*[_PAIR] * (len(lines) - 1), {"counts": dict, "groups": str}]
    rows = [
        parse_json(line, f"{file}:{n}", "a line of a round's pairs", kind, do=_AGAIN)
        for n, (line, kind) in enumerate(zip(lines, kinds, strict=True), 1)
    ]
    for n, r in enumerate(rows[:-1], 1):
        if any(len(k) != 3 or any(isinstance(x, list | dict) for x in k) for k in (r["chosen_key"], r["rejected_key"])):
            raise InputError(f"{file}:{n}: a key is no model, seed and index; {_AGAIN}")
    return rows


def _row(p: PseudoPair) -> dict[str, Any]:
    from trimtab.data.pairs import to_trl

    (row,) = to_trl([p.pair])
    numbers = {k: v if v == v else None for k, v in (("logprob", p.logprob), ("mean_logprob", p.mean_logprob))}
    return row | {
        "confidence": p.confidence, **numbers, "chosen_key": _key(p.pair.chosen), "rejected_key": _key(p.pair.rejected)
    }  # fmt: skip


def _key(c: Completion) -> tuple[str, int, int]:
    return c.model, c.seed, c.index


def _begin(out: Path, settings: Mapping[str, Any]) -> None:
    """Writes the card of a new run. SettingsChanged shows the difference to the run that `out` holds."""
    wanted = json.loads(canonical_json(dict(settings)))
    card = out / CARD
    if not card.exists():
        publish_text(card, json.dumps({"settings": wanted}, indent=2, ensure_ascii=False))
    old = read_json(card, "a West-of-N run's card", {"settings": dict}, do="use another directory")["settings"]
    refuse_changed(f"{out} holds a run", old, wanted)
