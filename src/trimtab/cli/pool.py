"""`trimtab pool`: prompts and models to a response matrix.

    trimtab pool pool.toml          or: trimtab pool --prompts a.jsonl --model small --model big --reward math_answer

A pool file (TOML):

    out = "runs/pool"
    prompts = ["sums.jsonl", "code.jsonl"]      # relative to the file; each prompt's tag is its `tags` column,
    n = 1                                       # or else the name of its file without the ending
    temperature = 0.0
    max_tokens = 256
    [[models]]
    name = "smollm2-135m"
    [[models]]
    name = "gpt-oss"
    engine = "openai"
    base_url = "http://localhost:8000/v1"
    price_million = 0.6
    [[rewards]]
    name = "math_answer"
    [[rewards]]
    tag = "code"                                # for the prompts of code.jsonl; the one without a tag is for the rest
    name = "unit_tests"
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli.config import Model
from trimtab.cli.options import Config, Device, Json, emit, one_source


@dataclass(frozen=True)
class Member(Model):
    """One model of the pool: the keys of a task file's [model], and these."""

    name: str = ""
    alias: str = ""
    """Its name in the matrix; empty: `name`."""
    template: str = ""
    """A base model's text prompt with {prompt} in it; empty: chat messages."""
    stop: list[str] = field(default_factory=list)
    price_call: float = -1.0
    """US dollars a call; below 0 with `price_million`: unknown."""
    price_million: float = -1.0
    """US dollars a million generated tokens."""


@dataclass(frozen=True)
class Scored:
    """A built-in reward by name or `package.module:function`, for the prompts of one tag or (no tag) for the rest."""

    name: str = ""
    tag: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PoolTask:
    """A pool file."""

    out: str = "runs/pool"
    prompts: list[str] = field(default_factory=list)
    models: list[Member] = field(default_factory=list)
    rewards: list[Scored] = field(default_factory=list)
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    seed: int = 0
    batch: int = 0
    """Prompts given to a model at once: 1 measures the latency of a call alone, 0 is fastest."""
    workers: int = 0
    chat: bool = True


def pool(
    file: Annotated[
        str | None, typer.Argument(metavar="[POOL]", help="Pool file (TOML); flags lie over it. Or --config.")
    ] = None,
    config: Config = None,
    prompts: Annotated[list[str] | None, typer.Option("--prompts", help="JSONL or Parquet. Repeatable.")] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="Name or folder, hf:NAME, or your own sampler as package.module:name. Repeatable."
        ),
    ] = None,
    reward: Annotated[str | None, typer.Option("--reward", help="Built-in reward or package.module:function.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest completion, in tokens.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Prompts a model at once; 1 measures latency, 0 is fastest.")
    ] = None,
    device: Device = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Run directory (the store and matrix.parquet).")
    ] = None,
    json: Json = False,
) -> None:
    """Let every model of a pool answer every prompt, score all, write the response matrix. Run again to continue."""
    import numpy as np

    from trimtab.cli.config import read_sections
    from trimtab.data.matrix.files import POOL_MATRIX
    from trimtab.errors import InputError
    from trimtab.evaluation.routing.pool import Pool, fill_pool
    from trimtab.jobs import make
    from trimtab.store import Store
    from trimtab.types import SamplingParams

    flags = {
        "prompts": prompts, "models": [make.named(m) for m in models] if models else None, "out": out, "batch": batch,
        "rewards": [{"name": reward}] if reward else None, "max_tokens": max_tokens,
    }  # fmt: skip
    config = one_source(file, config)
    task = read_sections(PoolTask, config, flags)
    if not (task.prompts and task.models and task.rewards):
        raise InputError(
            "a pool needs prompts, models and rewards: give a pool file, or --prompts, --model and --reward"
        )
    base = Path(config).parent if config and not prompts else Path()
    asked, tags = _prompts([str(base / p) for p in task.prompts], task.chat)
    named = {m.alias or m.name: m for m in task.models}
    if len(named) < len(task.models):
        raise InputError("two models of the pool have the same name; tell them apart with `alias`")
    named = {name: replace(m, device=m.device or device or "") for name, m in named.items()}
    by_source = _rewards(task.rewards, sorted({p.source for p in asked}))
    _check(task, list(named.values()), by_source, asked)
    members = Pool({name: _sampler(m) for name, m in named.items()}, _prices(named))
    store = Store(task.out)
    params = SamplingParams(task.temperature, task.top_p, task.top_k, task.max_tokens, (), task.seed)
    matrix = fill_pool(
        asked, members, by_source, store, n=task.n, params=params,
        batch=task.batch, tags=tags, workers=task.workers or None,
    )  # fmt: skip
    path = store.path / POOL_MATRIX
    matrix.save(path)
    columns = {"reward": matrix.reward_PM, "tokens": matrix.tokens_PM, "price": matrix.price_PM}
    columns["seconds"] = matrix.latency_PM
    rows = [
        {"model": m, **{k: _mean(np.asarray(a)[:, i]) for k, a in columns.items()},
         "unscored": int(np.isnan(matrix.reward_PM[:, i]).sum())}
        for i, m in enumerate(matrix.models)
    ]  # fmt: skip
    lines = [f"{'model':28} reward  tokens  dollars a call  seconds  unscored"]
    lines += [
        f"{r['model']:28} {_show(r['reward'], '6.3f')}  {_show(r['tokens'], '6.1f')}  {_show(r['price'], '14.3g')}  "
        f"{_show(r['seconds'], '7.2f')}  {r['unscored']:8}"
        for r in rows
    ]
    if matrix.missing and matrix.whole_P.any():
        common = matrix.common()
        on = ", ".join(f"{m} {v:.3f}" for m, v in zip(common.models, common.reward_PM.mean(0), strict=True))
        lines += [f"on the {len(common)} of {len(matrix)} prompts that all models have a reward on: {on}"]
    emit({"matrix": str(path), "prompts": len(matrix), "models": rows}, "\n".join([*lines, f"wrote {path}"]), json)


def _check(task: PoolTask, members: Sequence[Member], rewards: Mapping[str, Any], asked: Sequence[Any]) -> None:
    """InputError with all that stands in the way, before the first model is loaded."""
    from trimtab.jobs import checks

    of = {source: [p for p in asked if p.source == source] for source in rewards}
    checks.every([
        lambda: checks.writable(task.out),
        *(partial(checks.sampler, **_model(m)) for m in members),
        *(partial(checks.columns, r, of[source]) for source, r in rewards.items()),
        *(partial(checks.context, m.name, m.engine, asked, task.max_tokens) for m in members if not m.template),
    ])  # fmt: skip


def _model(m: Member) -> dict[str, Any]:
    """The keys that a pool's model shares with a task's."""
    return {f.name: getattr(m, f.name) for f in fields(Model)}


def _prompts(files: Sequence[str], chat: bool) -> tuple[list[Any], dict[str, list[str]]]:
    """Prompts whose source is their file's name without the ending, and the tags of each."""
    from trimtab import data
    from trimtab.errors import InputError

    out, tags = [], {}
    for file in files:
        name = Path(file).name.removesuffix(".gz").rsplit(".", 1)[0]
        for p in data.load(file, chat=chat):
            if p.id in tags:
                raise InputError(f"{file}: prompt id {p.id!r} is in another file of the pool, too; make ids unique")
            given = p.columns.get("tags")
            tags[p.id] = [given] if isinstance(given, str) else list(given or [name])
            out.append(replace(p, source=name))
    return out, tags


def _sampler(m: Member) -> Any:
    from trimtab.errors import InputError
    from trimtab.evaluation.routing.pool import AsText
    from trimtab.jobs import make

    if not m.name:
        raise InputError("a model of the pool has no name; give `name` in its [[models]] section")
    sampler = make.sampler(**_model(m))
    return AsText(sampler, m.template, tuple(m.stop)) if m.template else sampler


def _prices(members: dict[str, Member]) -> dict[str, Any]:
    from trimtab.evaluation.routing.pool import Price

    return {
        name: Price(max(m.price_call, 0.0), max(m.price_million, 0.0))
        for name, m in members.items()
        if max(m.price_call, m.price_million) >= 0
    }


def _rewards(given: Sequence[Scored], sources: Sequence[str]) -> dict[str, Any]:
    from trimtab import rewards
    from trimtab.errors import InputError, unknown

    by_tag = {s.tag: rewards.resolve(s.name, **s.options) for s in given}
    if len(by_tag) < len(given):
        raise InputError("two rewards are for the same tag; keep one")
    for tag in by_tag:
        if tag and tag not in sources:
            raise unknown("tag of a reward", tag, sources)
    if lost := [s for s in sources if s not in by_tag and "" not in by_tag]:
        raise InputError(f"no reward for the prompts of {', '.join(lost)}; add a [[rewards]] section without a tag")
    return {s: by_tag[s] if s in by_tag else by_tag[""] for s in sources}


def _mean(values: Any) -> float | None:
    import numpy as np

    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _show(value: float | None, form: str) -> str:
    return format(value, form) if value is not None else "unknown".rjust(int(form.split(".")[0]))
