"""The main job: PROMPTS and a reward to completions, rewards, vectors, probes, the table and the report.

Every stage is a function that reads and writes one run directory, skips what is there, and can be run alone or
replaced by a foreign tool; `run` is all of them. Samplers, rewards and embedders are given as names or as objects.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import embeddings, evaluation, learners, rewards, samplers
from trimtab.embeddings.stored import ManyStates, ReadStates
from trimtab.errors import InputError
from trimtab.jobs import checks, make, probes
from trimtab.jobs.prompts import Prompts, add, divide, sampled
from trimtab.progress import working
from trimtab.publish import publish_text
from trimtab.rewards import unit_tests
from trimtab.samplers.openvino import OpenVINO
from trimtab.store import Store
from trimtab.types import Embedder, Group, RewardFn, Sampler, SamplingParams

SETS = {"train": "train", "test": "test", "greedy": "test"}
"""Sets of completions, and the split of prompts each is sampled from."""
Out = str | Path | Store
Given = Mapping[str, Any] | None
Extract = Callable[[str], str | None]


def run(
    prompts: Prompts = "", *, out: Out, reward: str | RewardFn = "", options: Given = None,
    model: str | Sampler = "qwen2.5-coder-0.5b", embedder: str | Embedder = "hidden_states", dividing: Given = None,
    sampling: Given = None, scoring: Given = None, fitting: Given = None, comparing: Given = None,
    say: Callable[[str], None] = lambda line: None,
) -> evaluation.Table:  # fmt: skip
    """Every stage in order, what is there being skipped; returns the table, and the report is in the run directory.

    `prompts`: a file, a named task or a list; none: those that `out` holds. `options` are a named reward's. The other
    mappings are keywords of `prompts.divide`, `sample`, `score`, `fit` and `evaluate`. With no losses to fit there are
    no probes and no vectors. `say` hears a line or two a stage.
    """
    given = {"reward": reward, "options": options}
    store = add(out, divide(prompts, **(dividing or {})) if prompts else None)
    losses = tuple((fitting or {}).get("losses", probes.LOSSES))
    beside = model if isinstance(model, str) else model.model.partition("@")[0]
    made = make.embedder(embedder, beside=beside) if losses else None
    keys = made.keys if isinstance(made, ManyStates) else ()
    stages: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("sampled", lambda: sample(store, model, embedder=made, **(sampling or {}))),
        ("scored", lambda: score(store, reward, options=options, **(scoring or {}))),
    ]
    if made:
        stages.append(("embedded", lambda: embed(store, made)))
        stages.append(("fitted", lambda: fit(store, **given, keys=keys, **(fitting or {}))))
    for label, stage in stages:
        begun = time.monotonic()
        facts = stage()
        say(f"{told(label, facts)}  ({time.monotonic() - begun:.1f} s)")
    found = evaluate(store, **given, losses=losses, strict=True, **(comparing or {}))
    say(f"\n{found.table}\n\nwrote {report(found, keys=keys)}")
    return found.table


def told(label: str, facts: Mapping[str, Any]) -> str:
    """One line for people: what a stage did, from its facts."""
    return f"{label:<9}" + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in facts.items())


def sample(
    out: Out, model: str | Sampler = "qwen2.5-coder-0.5b", *, train_n: int = 16, test_n: int = 32,
    temperature: float = 0.8, top_p: float = 0.95, top_k: int = 0, max_tokens: int = 256, stop: Sequence[str] = (),
    seed: int = 0, embedder: Embedder | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Prompts to completions: n a prompt for training and test, and one greedy completion a test prompt.

    The vectors of an `embedder` that OpenVINO can read while it samples are kept on the way; others are not made here.
    """
    store, sampler = add(out), make.sampler(model)
    params = SamplingParams(temperature, top_p, top_k, max_tokens, tuple(stop), seed)
    greedy = SamplingParams(0.0, 1.0, 0, max_tokens, tuple(stop), seed)
    facts: dict[str, Any] = {"model": sampler.model}
    if isinstance(sampler, OpenVINO) and isinstance(embedder, ReadStates) and embedder.readable(sampler.name):
        sampler = replace(sampler, layers=embedder.layers)
    for name, n, how in (("train", train_n, params), ("test", test_n, params), ("greedy", 1, greedy)):
        with _reading(sampler, None if name == "greedy" else embedder, store, name) as engine:
            groups = samplers.Cached(engine, store, name)(store.prompts(SETS[name]), n, how)
        facts[name] = f"{len(groups)} x {n}"
        if failed := sum(c.failed for g in groups for c in g.completions):
            facts[f"{name}_failed"] = f"{failed} (asked for again by the next run)"
    return facts


@contextmanager
def _reading(sampler: Sampler, embedder: Embedder | None, store: Store, name: str) -> Iterator[Sampler]:
    """The sampler; one that reads states gives them to the table of vectors."""
    if embedder and isinstance(sampler, OpenVINO) and sampler.layers:
        with embeddings.Stored(embedder, store, name).keeping() as keep:
            yield replace(sampler, keep=keep)
    else:
        yield sampler


def check_gold(out: Out) -> dict[str, Any]:
    """The prompts' own solutions against their own tests: how many have one, and {id: why} of those that fail."""
    store = add(out)
    prompts = [p for split in ("train", "test") for p in store.prompts(split)]
    having = sum(any(p.columns.get(g) is not None for g in unit_tests.GOLD) for p in prompts)
    return {"prompts": len(prompts), "with_gold": having, "failed": dict(unit_tests.check_gold(prompts))}


def score(
    out: Out, reward: str | RewardFn, *, options: Given = None, workers: int = 0, timeout_s: float | None = None
) -> dict[str, Any]:
    """Completions to rewards; what could not be scored is NaN with a note, and counted here by its note.

    `workers` processes of at most `timeout_s` an item; 0 and None: as the reward asks. `options`: a named reward's.
    """
    store, name = sampled(out), reward_name(reward, options)
    made = make.reward(reward, **(options or {}))
    facts: dict[str, Any] = {"reward": name}
    for set_ in _sets(store):
        groups = rewards.score(
            store.groups(set_, None), made, store=store, name=set_, reward_name=name, workers=workers or None,
            timeout_s=timeout_s,
        )  # fmt: skip
        values = np.concatenate([g.reward_N for g in groups])
        facts[set_] = f"{np.nanmean(values):.3f}" if np.isfinite(values).any() else "nothing scored"
        for note, count in rewards.unscored(groups).items():
            facts[f"{set_}_unscored"] = f"{count} ({note})"
    return facts


def embed(out: Out, embedder: Embedder) -> dict[str, Any]:
    """Completions to vectors, those of the greedy answers excepted: nothing chooses among one."""
    store = sampled(out)
    facts: dict[str, Any] = {k: embedder.card[k] for k in ("model", "layers") if k in embedder.card}
    for set_ in _sets(store, "greedy"):
        vectors = embeddings.Stored(embedder, store, set_)(store.groups(set_, None))
        facts[set_] = f"{sum(map(len, vectors))} x {vectors[0].shape[1]}"
    return facts


def fit(out: Out, *, reward: str | RewardFn = "", options: Given = None, **how: Any) -> dict[str, Any]:
    """Rewards and vectors to one probe a loss; the keywords are those of `probes.fit`."""
    store = sampled(out)
    return probes.fit(store, store.groups("train", reward_name(reward, options, store)), **how)


def fit_reranker(
    out: Out, *, reward: str | RewardFn = "", options: Given = None, extract: str | Extract = "", **how: Any
) -> dict[str, Any]:
    """Rewards, log-probs and vectors to a reranker; the keywords are those of `probes.fit_reranker`."""
    store = sampled(out)
    groups = store.groups("train", reward_name(reward, options, store))
    same = extractor(extract, reward, options, groups) or rewards.extractor("whole")
    return probes.fit_reranker(store, groups, same=same, **how)


@dataclass(frozen=True)
class Evaluated:
    """The scored test groups, the greedy answers, each probe and each ranking's values, and the table made of all."""

    store: Store
    name: str
    reward: str
    """The name under which it is stored."""
    groups: list[Group]
    greedy: list[Group] | None
    probes: "dict[str, learners.Probe]"
    values: dict[str, list[list[float]]]
    table: evaluation.Table
    extract: Extract | None
    meta: dict[str, str]
    curve: dict[str, Any]
    """Keywords of every curve of the report."""


def evaluate(
    out: Out, *, reward: str | RewardFn = "", options: Given = None, losses: Sequence[str] = probes.LOSSES,
    extract: str | Extract = "", beta: float = 0.1, draws: int = 10_000, seed: int = 0, strict: bool = False,
) -> Evaluated:  # fmt: skip
    """What every strategy buys on the test prompts; the table is kept as table.json in the run directory.

    `extract` gives what majority vote counts; none: by the reward or the golds. `beta`: the softmax policy's. Probes
    that have not been fitted are left out with a note; with `strict` they are an InputError.
    """
    store = sampled(out)
    name, stored_as = _tested(store), reward_name(reward, options, store)
    groups = store.groups(name, stored_as)
    greedy = store.groups("greedy", stored_as) if "greedy" in store.names("completions") else None
    fitted, notes = probes.load(store, name, losses, strict=strict)
    vote = extractor(extract, reward, options, groups)
    with working("comparing strategies"):
        values = {f"probe {loss}": probes.numbers(p, groups) for loss, p in fitted.items()}
        values |= probes.reranked(store, name, groups, vote or rewards.extractor("whole"))
        # the best on training prompts, never on test
        best = max(fitted, key=lambda loss: probes.held_out(fitted[loss].card), default="")
        table = evaluation.compare(
            groups, values, greedy_groups=greedy, beta=beta, soft=[f"probe {best}"] if best else [], extract=vote,
            draws=draws, seed=seed,
        )  # fmt: skip
    if vote is None:
        notes.append(
            "majority vote is left out: neither the reward nor the golds say what it would count; name an extractor "
            "with eval.extract"
        )
    known = [n for n in table.notes if n != evaluation.NO_EXTRACTOR]
    table = replace(table, notes=(*known, *notes))
    publish_text(store.path / "table.json", table.to_json())
    models = ", ".join(sorted({c.model for g in groups for c in g.completions}))
    meta = {"model": models, "reward": reward if isinstance(reward, str) else stored_as}
    curve = {"draws": min(draws, 2000), "seed": seed}  # many points, so fewer draws each than the table's
    return Evaluated(store, name, stored_as, groups, greedy, fitted, values, table, vote, meta, curve)


def report(found: Evaluated, *, keys: Sequence[str] = ()) -> Path:
    """The table, the curves and a browser of groups as report.html in the run directory.

    `keys`: the stored layers ("layer20.last") on which the probes are fitted again for a curve, if there are several.
    """
    checks.need("plotly")
    store, groups, values = found.store, found.groups, found.values
    curve = {"greedy_groups": found.greedy, **found.curve}
    with working("drawing the report"):
        figures = [f(groups, values, **curve) for f in (evaluation.reward_against_k, evaluation.reward_against_beta)]
        if found.probes:
            train = store.groups("train", found.reward)
            refits = probes.Refits(store, found.name, groups, train, found.probes, curve)
            figures.append(refits.against_prompts())
            if len(keys) > 1:
                figures.append(refits.against_layer(keys))
        figures += probes.calibrations(store)
        strategies, _ = evaluation.strategies(
            groups, values, beta=found.table.meta["beta"], soft=[], extract=found.extract
        )
        return evaluation.write_report(
            store.path / "report.html", found.table, figures, groups, values=values,
            choices=evaluation.choices(groups, strategies), greedy_groups=found.greedy,
            pass_rates=evaluation.value_against_pass_rate(groups, values, **found.curve),
            meta={**found.meta, **found.table.meta}, title=f"trimtab: {store.path}",
        )  # fmt: skip


def reward_name(reward: str | RewardFn, options: Given = None, store: Store | None = None) -> str:
    """The name under which a run's rewards are stored; the only one in the store where none is named."""
    if reward:
        return make.reward_name(reward, **(options or {}))
    if store and (name := store.reward_name("test" if "test" in store.names("completions") else "train")):
        return name
    raise InputError("no reward; give reward.name (or --reward): a built-in or package.module:function")


def extractor(extract: str | Extract, reward: str | RewardFn, options: Given, groups: list[Group]) -> Extract | None:
    """What majority vote counts: what `extract` says, else by the reward, else by the golds; None: nothing to count."""
    if not isinstance(extract, str):
        return extract
    if not extract:
        try:
            made = make.reward(reward, **(options or {})) if reward else None
        except InputError:  # the user's function may not be at hand where only the run directory is
            made = None
        extract = rewards.extractor_for(made, [g.prompt for g in groups]) or ""
    return rewards.extractor(extract) if extract else None


def _sets(store: Store, *without: str) -> list[str]:
    names = [n for n in store.names("completions") if n not in without]
    if not names:
        raise InputError(f"{store.path} holds no completions; run `trimtab sample` first")
    return names


def _tested(store: Store) -> str:
    """The completions that are judged: "test", or the only ones there are."""
    names = _sets(store, "greedy")
    if "test" in names:
        return "test"
    if len(names) == 1:
        return names.pop()
    raise InputError(f"{store.path} holds no completions 'test' to judge, only {', '.join(sorted(names))}")
