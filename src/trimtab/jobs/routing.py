"""A response matrix to a router, to what it buys beside its nulls, and to one prompt's decision with the reasons."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.data.matrix.files import load_matrix
from trimtab.data.matrix.matrix import ResponseMatrix, split_matrix
from trimtab.data.matrix.rows import balanced, join_matrices, without_overlap
from trimtab.decoders.model import choose, utility
from trimtab.errors import InputError, ModelError, unknown
from trimtab.evaluation import Table
from trimtab.evaluation.pages.routing import exchange_rates, write_routing_report
from trimtab.evaluation.routing.measures import (
    aiq,
    arena_score,
    confusion,
    frontier,
    mean_rank,
    per_tag,
    route,
    routing_table,
    two_models,
    uplift,
)
from trimtab.intervals import figure
from trimtab.jobs import checks, make
from trimtab.json_file import read_json
from trimtab.learners.model.common import levels
from trimtab.learners.model.router import RewardRouter, check_pool, fit_router, load_router
from trimtab.learners.model.tags import asking, cluster_tags, keyword_tags, llm_tags
from trimtab.types import Prompt, PromptEmbedder, user_text

Array = npt.NDArray[np.float64]
Prices = Mapping[str, float] | None
"""Dollars a call, by model."""


@dataclass(frozen=True)
class Fitted:
    """A router, the table that it was fitted on, and how many prompts of it were dropped before."""

    router: RewardRouter
    table: ResponseMatrix
    dropped: int
    out: str

    def plain(self) -> dict[str, Any]:
        """For a manifest or `--json`."""
        r, guard = self.router, self.router.card.get("guard", "not asked")
        return {"router": self.out, "head": r.head, "constant": r.constant, "guard": guard,
                "dropped_overlap": self.dropped, **r.card["data"]}  # fmt: skip

    def __str__(self) -> str:
        t = self.table
        said = f"{len(t)} prompts x {len(t.models)} models"
        if t.missing:
            said += f", {t.missing} cells missing ({int(t.whole_P.sum())} prompts have all)"
        if self.dropped:
            said += f", {self.dropped} more dropped for sharing 6 words with a test table"
        note = f"\ntable: {t.note}" if t.note else ""
        return f"{said}{note}\nguard: {self.plain()['guard']}\nsaved {self.router.head} in {self.out}"


def fit(
    matrix: str, *, out: str, method: str = "tags", encoder: str = make.NGRAMS, format: str = "",
    models: Sequence[str] = (), guard: bool = True, guard_by: str = "prompts",
    settings: Mapping[str, Any] | None = None, tagger: str = "", balance: int = 0, away_from: Sequence[str] = (),
    seed: int = 0,
) -> Fitted:  # fmt: skip
    """A router in the folder `out`; unless it beats the best single model on held-out prompts, that model.

    `matrix`: a table's file (of `format`; found from its columns if empty) or a pool's run directory, of all its models
    or these. `tagger`: clusters:16, keywords:FILE.json or llm:MODEL instead of the table's own tags. `balance`: at most
    so many random prompts of each tag. Prompts that share 6 words in a row with the tables `away_from` are dropped.
    `settings`: the method's own. `guard_by`: what the guard holds out, prompts or tags.
    """
    checks.writable(out)
    table, embed = _table(matrix, format, models), make.encoder(encoder)
    table = _tagged(table, tagger, embed, seed, Path(out)) if tagger else table
    table = balanced(table, balance, seed) if balance else table
    table, dropped = without_overlap(table, [load_matrix(f) for f in away_from]) if away_from else (table, 0)
    fitted = fit_router(table, embed, method=method, guard=guard, guard_by=guard_by, seed=seed, **(settings or {}))
    fitted.save(out)
    return Fitted(fitted, table, dropped, out)


@dataclass(frozen=True)
class Judged:
    """What a router bought on the prompts that every model was measured on: table, tags, money, ranks."""

    table: Table
    facts: Mapping[str, Any]
    tags: Sequence[Mapping[str, Any]]

    def plain(self) -> dict[str, Any]:
        """For a manifest or `--json`."""
        by_tag = [{**r, "gain": list(r["gain"][:3])} for r in self.tags]
        return {"rows": self.table.plain(rewards=False)["rows"], "tags": by_tag, **self.facts}

    def __str__(self) -> str:
        f = self.facts
        lines = [f"{'':14} reward                  gain over best single      gap"]
        for r in self.table.rows:
            lines += [f"{r.name:14} {r.reward}   {r.difference or ''!s:22}   {figure(r.more['gap'].mean, '6.1f')}"]
        lines += [f"best single: {f['best_single']}; duplicates moved to train: {f['moved_duplicates']}"]
        lines += [f"table: {f['table']}"] if f["table"] else []
        n, left = f["prompts"], f["left_out_seen"]
        if f["compared"] < n:
            lines += [f"compared on {f['compared']} of {n} prompts: those that every model was measured on"]
        if left:
            lines += [f"{left} prompts left out: the router was fitted on them (--keep-seen keeps them)"]
        for r in self.tags:
            lines += [
                f"  {r['tag']:24} n {r['n']:5}  {figure(r['reward'])}  gain {r['gain']}  oracle {figure(r['oracle'])}"
            ]
        lines += [f"{k}: {figure(f[k], '.4g')}" for k in ("aiq", "arena_score", "apgr") if k in f]
        if "mtr" in f:
            first = min(f["models"], key=f["mtr"].__getitem__)
            mtr = f"router {f['mtr']['router']:.2f}, best model {first} {f['mtr'][first]:.2f}"
            lines += [f"MTR over {f['subsets']} tags (ties averaged, router alone against the models): {mtr}"]
        return "\n".join([*lines, *([f"wrote {f['html']}"] if "html" in f else [])])


def evaluate(
    matrix: str, *, router: str = "", method: str = "tags", encoder: str = "", format: str = "",
    models: Sequence[str] = (), prices: Prices = None, exchange: float = 0.0,
    settings: Mapping[str, Any] | None = None, keep_seen: bool = False, seeds: int = 5, out: str = "",
) -> Judged:  # fmt: skip
    """The router's reward beside random, best single and oracle, with intervals; per tag; against the oracle.

    `router`: the folder of a fitted one, judged on prompts that it was not fitted on (or on all, `keep_seen`). Without
    it a router of `method` is fitted on one side of `seeds` random 80/20 splits and judged on the other. `exchange`:
    reward that one dollar is worth. `out`: an offline page with the frontier, tags and confusion.
    """
    if out:
        checks.writable_file(out)
        checks.need("plotly")
    table, chosen, left_out = _table(matrix, format, models), None, 0
    if router:
        chosen = load(router, encoder)
        check_pool(chosen, table.models)
        table, left_out = (table, 0) if keep_seen else _unseen(table, chosen, matrix)
        splits = [(table, table, 0)]
    else:
        splits = [split_matrix(table, 0.2, seed) for seed in range(seeds)]
    values, singles = [], []
    for seed, (train, test, _) in enumerate(splits):
        fitted = chosen or fit_router(
            train, make.encoder(encoder or make.NGRAMS), method=method, guard=False, seed=seed, **(settings or {})
        )
        values.append([[row[m] for m in table.models] for row in fitted(test.prompts)])
        singles += [chosen.card["best_single"] if chosen else _best_single(train)] * len(test)
    joined, moved = join_matrices([test for _, test, _ in splits]), sum(m for *_, m in splits)
    tested, whole = joined.common(), joined.whole_P
    value, reward = np.concatenate(values)[whole], tested.reward_PM
    best = np.array([table.models.index(m) for m in singles])[whole]
    price_M = _known_prices(table.common(), prices or {})
    rows = routing_table({"router": value}, tested, best=best, price_M=price_M, exchange=exchange)
    facts = {
        "best_single": ", ".join(sorted(set(singles))), "confusion": confusion(value, reward).tolist(),
        "models": list(table.models), "moved_duplicates": moved, "left_out_seen": left_out, "prompts": len(joined),
        "compared": len(tested), "table": table.note, **money(value, reward, price_M),
        **ranks(value, reward, tested.tags, table.models),
    }  # fmt: skip
    if out:
        name = f"router ({router})" if router else f"{method}, {encoder or make.NGRAMS}"
        said = {"table": matrix, "splits": "none" if router else seeds, "duplicates moved to train": moved}
        facts["html"] = str(write_routing_report(out, {name: value}, tested, best=best, price_M=price_M, meta=said))
    return Judged(rows, facts, per_tag(route(value, reward), reward, tested.tags, best))


def decide(
    prompt: str, *, router: str, encoder: str = "", prices: Prices = None, exchange: float = 0.0
) -> dict[str, Any]:
    """The model a prompt goes to, every model's expected reward, and why: the tags whose prompts are nearest."""
    fitted = load(router, encoder)
    asked = [Prompt("prompt", ({"role": "user", "content": prompt},))]
    (row,) = fitted(asked)
    names = list(row)
    price_M = [(prices or {}).get(m, float("nan") if exchange else 0.0) for m in names]
    model = names[int(choose(utility(np.array([list(row.values())]), price_M, exchange))[0])]
    near = fitted.why(fitted.embed.embed_prompts(asked)[0]) if fitted.embed is not None else []
    return {"model": model, "rewards": row, "why": dict(near), "guard": fitted.card.get("guard", "")}


def load(folder: str, encoder: str = "") -> RewardRouter:
    """A saved router with the encoder that its card asks for. InputError when `encoder` is another."""
    return load_router(folder, make.encoder(encoder_of(folder, encoder)))


def encoder_of(folder: str, asked: str = "") -> str:
    """The encoder that a saved router's card asks for. InputError when `asked` is another."""
    kinds: Any = {"encoder?": (dict, type(None)), "encoder.kind?": str, "encoder.model?": str}
    do = f"{folder} holds no router; fit one with `trimtab fit router`"
    card = read_json(Path(folder) / "router.json", "a router's card", kinds, do=do, error=ModelError)
    read = card.get("encoder") or {}
    kinds = {"hashed n-grams": "ngrams", "encoder": "minilm", "both": "both", "static": "static"}
    own = kinds.get(read.get("kind", ""), "")
    if read.get("kind") == "encoder" and Path(read["model"]).is_dir():
        own = read["model"]
    if asked and own and asked != own and card.get("head") != "constant":
        raise InputError(f"the router in {folder} was fitted with --encoder {own}, not {asked}; leave the option out")
    return own or asked or make.NGRAMS


def money(value: Array, reward: Array, prices: list[float]) -> dict[str, Any]:
    """AIQ, RouterArena's score and, for two models, APGR and CPT; nothing where a price is unknown."""
    if np.isnan(prices).any() or not np.max(prices) > 0:
        return {}
    points = frontier(value, reward, prices, exchange_rates(value, prices))
    out: dict[str, Any] = {"aiq": aiq([p["price"] for p in points], [p["reward"] for p in points])}
    if np.nanmin(reward) >= 0 and np.nanmax(reward) <= 1:  # an accuracy
        cost = np.asarray(prices)[np.where(np.isnan(reward), -np.inf, value).argmax(1)].mean()
        out["arena_score"] = arena_score(float(route(value, reward).mean()), 1000 * float(cost))
    if len(prices) == 2 and not np.isnan(reward).any():
        weak, strong = np.argsort(prices, kind="stable")
        found = two_models(value[:, strong] - value[:, weak], reward[:, weak], reward[:, strong])
        out |= {"apgr": found.apgr, "cpt": {str(k): v for k, v in found.cpt.items()}}
    return out


def ranks(value: Array, reward: Array, tags: Sequence[Sequence[str]], models: Sequence[str]) -> dict[str, Any]:
    """MTR and %Uplift over the tags as subsets: each model among the models, the router alone against them."""
    names = sorted({t for row in tags for t in row})
    wide = np.column_stack([reward, route(value, reward)])
    at = [np.array([t in row for row in tags]) for t in names]
    score = np.array([[v[~np.isnan(v)].mean() if (~np.isnan(v)).any() else np.nan for v in wide[a].T] for a in at])
    if not names or np.isnan(score).any():
        return {}
    pool = range(len(models))
    rank, share = mean_rank(score, pool=pool), uplift(score, pool=pool)
    systems = [*models, "router"]
    return {"subsets": len(names), "mtr": dict(zip(systems, rank.tolist(), strict=True)),
            "uplift": dict(zip(systems, share.tolist(), strict=True))}  # fmt: skip


def _table(matrix: str, format: str, models: Sequence[str]) -> ResponseMatrix:
    table = load_matrix(matrix, format)
    return table.pool(list(models)) if models else table


def _unseen(table: ResponseMatrix, fitted: RewardRouter, name: str) -> tuple[ResponseMatrix, int]:
    """The table without the prompts that the router was fitted on, and how many those are. InputError if all are."""
    seen = fitted.seen(table.prompts)
    if seen.all():
        raise InputError(f"{name}: the router was fitted on every prompt of it; give other prompts, or --keep-seen")
    return table.rows(~seen), int(seen.sum())


def _tagged(table: ResponseMatrix, tagger: str, embed: PromptEmbedder, seed: int, out: Path) -> ResponseMatrix:
    """The table with the tags of a tagger instead of its own."""
    kind, _, argument = tagger.partition(":")
    texts = [user_text(p) for p in table.prompts]
    if kind == "clusters":
        if not argument.isdigit() or int(argument) < 1:
            raise InputError(f"--tagger {tagger!r}: write clusters:16, with the number of clusters")
        tags, _ = cluster_tags(embed.embed_prompts(table.prompts), int(argument), seed)
    elif kind == "keywords":
        try:
            words = json.loads(Path(argument).read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise InputError(f'--tagger {tagger!r}: {e}; the file is JSON such as {{"code": ["python"]}}') from e
        tags = keyword_tags(texts, words)
    elif kind == "llm":
        tags = llm_tags(texts, asking(make.sampler(argument)), out / "tags.jsonl")
    else:
        raise unknown("tagger", kind, ("clusters", "keywords", "llm"))
    return replace(table, tags=tuple(map(tuple, tags)))


def _known_prices(matrix: ResponseMatrix, given: Mapping[str, float]) -> list[float]:
    """Dollars a call of each model: as given, or else the mean of its cells in the table; NaN where neither is."""
    if odd := sorted(set(given) - set(matrix.models)):
        raise unknown("model in --price", odd[0], matrix.models)
    cells = np.asarray(matrix.price_PM)
    known = ~np.isnan(cells)
    mean = np.where(known.any(0), np.where(known, cells, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)
    return [given.get(m, float(mean[i])) for i, m in enumerate(matrix.models)]


def _best_single(matrix: ResponseMatrix) -> str:
    """The model with the highest mean reward in the table, as if all had answered all prompts."""
    return matrix.models[int(levels(matrix.reward_PM).mean_M.argmax())]
