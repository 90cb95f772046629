"""PROMPTS and a pool of samplers to a response matrix: every model answers every prompt once paid, in one store.

What a router learns from (Zooter, Lu et al. 2024, section 3.1): all models on all prompts, scored by a reward. Any mix
of engines and endpoints is a pool, for each is a `Sampler`. Killed and run again it samples and scores only what is
missing. It learns nothing and chooses nothing.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import data
from trimtab.data.matrix.files import POOL_MATRIX
from trimtab.data.matrix.matrix import ResponseMatrix, from_cells
from trimtab.endpoints import Fault
from trimtab.errors import InputError, unknown
from trimtab.evaluation.choosing import token_count
from trimtab.jobs import checks, make
from trimtab.rewards.score import score
from trimtab.samplers.cached import Cached
from trimtab.samplers.text import AsText
from trimtab.store import Store
from trimtab.types import Group, Price, Prompt, RewardFn, Sampler, SamplingParams, Usage, user_text

SPLIT = "pool"
"""The store's split that holds a pool's prompts."""
SECONDS = "seconds"
"""The table beside a model's rewards that holds the wall-clock seconds of its calls."""


@dataclass(frozen=True)
class Pool:
    """Models by name, and what they cost. A model without a price has an unknown one (NaN)."""

    samplers: Mapping[str, Sampler]
    prices: Mapping[str, Price] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samplers:
            raise InputError("a pool needs at least one model")
        if odd := sorted(set(self.prices) - set(self.samplers)):
            raise InputError(f"prices for {', '.join(odd)}, which the pool does not have ({', '.join(self.samplers)})")
        folders = sorted((table_of(n), n) for n in self.samplers)
        for (a, x), (b, y) in pairwise(folders):
            if a == b:
                raise InputError(f"the names {x!r} and {y!r} differ only in marks that no folder has; rename one")


@dataclass(frozen=True)
class Collected:
    """A pool's response matrix, and the file that it was written to."""

    matrix: ResponseMatrix
    path: Path

    def plain(self) -> dict[str, Any]:
        """For a manifest or `--json`: means of every model over what is known of it; None where nothing is."""
        m = self.matrix
        columns = {"reward": m.reward_PM, "tokens": m.tokens_PM, "price": m.price_PM, "seconds": m.latency_PM}
        rows = [
            {"model": name, **{k: _mean(np.asarray(a)[:, i]) for k, a in columns.items()},
             "unscored": int(np.isnan(m.reward_PM[:, i]).sum())}
            for i, name in enumerate(m.models)
        ]  # fmt: skip
        return {"matrix": str(self.path), "prompts": len(m), "models": rows}

    def __str__(self) -> str:
        m, lines = self.matrix, [f"{'model':28} reward  tokens  dollars a call  seconds  unscored"]
        lines += [
            f"{r['model']:28} {_show(r['reward'], '6.3f')}  {_show(r['tokens'], '6.1f')}  "
            f"{_show(r['price'], '14.3g')}  {_show(r['seconds'], '7.2f')}  {r['unscored']:8}"
            for r in self.plain()["models"]
        ]
        if m.missing and m.whole_P.any():
            common = m.common()
            on = ", ".join(f"{name} {v:.3f}" for name, v in zip(common.models, common.reward_PM.mean(0), strict=True))
            lines += [f"on the {len(common)} of {len(m)} prompts that all models have a reward on: {on}"]
        return "\n".join([*lines, f"wrote {self.path}"])


def collect(
    files: Sequence[str | Path], models: Mapping[str, str | Sampler | Mapping[str, Any]], rewards: Mapping[str, Any], *,
    out: str | Path, prices: Mapping[str, Price | None] | None = None, n: int = 1, temperature: float = 0.0,
    top_p: float = 1.0, top_k: int = 0, max_tokens: int = 256, seed: int = 0, batch: int = 0, workers: int = 0,
    chat: bool = True,
) -> Collected:  # fmt: skip
    """Every model on every prompt of these files, scored, in the run directory `out`, with the matrix beside.

    A prompt's tag is its `tags` column or else the name of its file without the ending. `models`: a sampler, its name,
    or the keywords of `make.sampler` with `template` and `stop` (`AsText`). `rewards`: a reward for each file by that
    name; the one under "" is for the rest. The other keywords are those of `fill_pool` and of its sampling. InputError
    with all that stands in the way, before the first model is loaded.
    """
    asked, tags = read_prompts(files, chat)
    by_source = _by_source(rewards, sorted({p.source for p in asked}))
    members = {name: _member(given) for name, given in models.items()}
    of = {source: [p for p in asked if p.source == source] for source in by_source}
    checks.every([
        lambda: checks.writable(out),
        *(partial(checks.sampler, **m.how) for m in members.values() if m.how),
        *(partial(checks.columns, r, of[source]) for source, r in by_source.items()),
        *(partial(checks.context, m.how["name"], m.how["engine"], asked, max_tokens)
          for m in members.values() if m.how and not m.template),
    ])  # fmt: skip
    samplers = {name: m.sampler() for name, m in members.items()}
    matrix = fill_pool(
        asked, Pool(samplers, {k: p for k, p in (prices or {}).items() if p}), by_source, store := Store(out), n=n,
        params=SamplingParams(temperature, top_p, top_k, max_tokens, (), seed), batch=batch, tags=tags,
        workers=workers or None,
    )  # fmt: skip
    matrix.save(path := store.path / POOL_MATRIX)
    return Collected(matrix, path)


def read_prompts(files: Sequence[str | Path], chat: bool = True) -> tuple[list[Prompt], dict[str, list[str]]]:
    """Prompts whose source is their file's name without the ending, and the tags of each."""
    out, tags = [], {}
    for file in map(str, files):
        name = Path(file).name.removesuffix(".gz").rsplit(".", 1)[0]
        for p in data.load(file, chat=chat):
            if p.id in tags:
                raise InputError(f"{file}: prompt id {p.id!r} is in another file of the pool, too; make ids unique")
            given = p.columns.get("tags")
            tags[p.id] = [given] if isinstance(given, str) else list(given or [name])
            out.append(replace(p, source=name))
    return out, tags


def fill_pool(
    prompts: Sequence[Prompt], pool: Pool, reward: RewardFn | Mapping[str, RewardFn], store: Store, *,
    n: int = 1, params: SamplingParams | None = None, reward_name: str = "reward", batch: int = 0,
    tags: Mapping[str, Sequence[str]] | None = None, workers: int | None = None,
) -> ResponseMatrix:  # fmt: skip
    """Every model of the pool on every prompt, scored: the matrix, its columns named as in the pool.

    `reward` is one for all prompts, or one for each `source`. n samples of a model are averaged. Tables: completions/
    <model>, rewards/<model>/<reward_name>, and rewards/<model>/seconds: wall-clock seconds a call, prompts given to the
    sampler `batch` at a time (1: the latency of a call alone; 0: all at once, the time shared among them). Seconds are
    NaN for what an earlier, killed run had sampled. `tags` maps prompt ids to labels; without it a prompt's `source` is
    its tag. InputError: a prompt whose source has no reward. SettingsChanged: the store holds other settings.
    """
    by_source = reward if isinstance(reward, Mapping) else None
    if by_source is not None and (lost := sorted({p.source for p in prompts} - set(by_source))):
        raise InputError(f"no reward for prompts of {', '.join(map(repr, lost))}; there are: {', '.join(by_source)}")
    params = params or SamplingParams()
    store.add_prompts(prompts, SPLIT)
    cells: list[dict[str, Any]] = []
    for name, sampler in pool.samplers.items():
        table, price = table_of(name), pool.prices.get(name)
        groups = _sampled(sampler, store, table, prompts, n, params, batch)
        seconds = {r["id"]: r["value"] for r in store.read(f"rewards/{table}/{SECONDS}").to_pylist()}
        scored = _scored(groups, by_source or {"": reward}, store, table, reward_name, workers)
        for g, ids in zip(scored, store.sample_ids(table, scored), strict=True):
            label = [g.prompt.source] if g.prompt.source else []
            label = label if tags is None else list(tags.get(g.prompt.id, ()))
            for c, r, i in zip(g.completions, g.rewards, ids, strict=True):
                tokens = token_count(c)
                cost = math.nan if price is None else price(Usage(completion_tokens=tokens, calls=1))
                cells.append({
                    "prompt_id": g.prompt.id, "prompt": user_text(g.prompt), "model": name, "reward": r.value,
                    "tokens": tokens, "price": cost, "latency": seconds.get(i), "tags": label, "text": c.text,
                })  # fmt: skip
    matrix = from_cells(cells, where=str(store.path))
    known = {p.id: p for p in prompts}
    return replace(matrix, prompts=tuple(known[p.id] for p in matrix.prompts))


def table_of(name: str) -> str:
    """The folder name of a model's tables: marks that a path cannot hold become _."""
    return re.sub(r"[^\w.@+=-]", "_", name)


def _sampled(
    sampler: Sampler, store: Store, table: str, prompts: Sequence[Prompt], n: int, params: SamplingParams, batch: int
) -> list[Group]:
    cached = Cached(sampler, store, table)
    there = set(store.read(f"completions/{table}", ["prompt_id"])["prompt_id"].to_pylist())
    missing = [p for p in prompts if p.id not in there]
    if missing:
        try:
            sampler(missing[:1], 1, replace(params, max_tokens=1))  # loads the model: that is no call's latency
        except Fault as fault:  # a server may refuse so short an answer, or this prompt
            if fault.blame == "all":
                raise
    size = batch or max(1, len(missing))
    for chunk in (missing[i : i + size] for i in range(0, len(missing), size)):
        begun = time.perf_counter()
        groups = cached(chunk, n, params)
        each = (time.perf_counter() - begun) / (len(chunk) * n)
        how = {"reward": f"wall-clock seconds a completion, {f'{batch} prompts' if batch else 'all'} at a time"}
        with store.writer(f"rewards/{table}/{SECONDS}", how) as writer:
            for g, ids in zip(groups, store.sample_ids(table, groups), strict=True):
                writer.append([{"id": i, "prompt_id": g.prompt.id, "value": each, "note": ""} for i in ids])
    return cached(prompts, n, params)


def _scored(
    groups: list[Group], rewards: Mapping[str, Any], store: Store, table: str, name: str, workers: int | None
) -> list[Group]:
    """Groups scored by the reward of their source ("" is for all), in their order."""
    done: dict[str, Group] = {}
    for source, reward in rewards.items():
        mine = [g for g in groups if source in ("", g.prompt.source)]
        label = f"{name}-{table_of(source)}" if source else name
        scored = score(mine, reward, store=store, name=table, reward_name=label, workers=workers) if mine else []
        done |= {g.prompt.id: g for g in scored}
    return [done[g.prompt.id] for g in groups]


@dataclass(frozen=True)
class _Member:
    """A sampler, or the keywords that make one; a template makes it answer raw text."""

    given: Any
    how: Mapping[str, Any]
    template: str = ""
    stop: tuple[str, ...] = ()

    def sampler(self) -> Sampler:
        made = make.sampler(**self.how) if self.how else self.given
        return AsText(made, self.template, self.stop) if self.template else made


def _member(given: str | Sampler | Mapping[str, Any]) -> _Member:
    if isinstance(given, str):
        given = make.named(given)
    if not isinstance(given, Mapping):
        return _Member(given, {})
    how = {"engine": "openvino", **given}
    return _Member(None, how, how.pop("template", ""), tuple(how.pop("stop", ())))


def _by_source(rewards: Mapping[str, Any], sources: Sequence[str]) -> dict[str, RewardFn]:
    for tag in rewards:
        if tag and tag not in sources:
            raise unknown("tag of a reward", tag, sources)
    if lost := [s for s in sources if s not in rewards and "" not in rewards]:
        raise InputError(f"no reward for the prompts of {', '.join(lost)}; add a [[rewards]] section without a tag")
    return {s: make.reward(rewards[s] if s in rewards else rewards[""]) for s in sources}


def _mean(values: Any) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _show(value: float | None, form: str) -> str:
    return format(value, form) if value is not None else "unknown".rjust(int(form.split(".")[0]))
