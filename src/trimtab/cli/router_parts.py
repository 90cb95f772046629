"""What the router verbs share: encoders, taggers, prices and settings from flags. Heavy imports in function bodies."""

from pathlib import Path
from typing import Any

from trimtab.cli.assignments import assignment, numbers
from trimtab.jobs.make import NGRAMS


def unseen(table: Any, fitted: Any, name: str) -> tuple[Any, int]:
    """The table without the prompts that the router was fitted on, and how many those are. InputError if all are."""
    from trimtab.errors import InputError

    seen = fitted.seen(table.prompts)
    if seen.all():
        raise InputError(f"{name}: the router was fitted on every prompt of it; give other prompts, or --keep-seen")
    return table.rows(~seen), int(seen.sum())


def tagged(table: Any, tagger: str, embed: Any, seed: int, out: Path) -> Any:
    """The table with the tags of a tagger instead of its own."""
    import json
    from dataclasses import replace

    from trimtab.errors import InputError, unknown
    from trimtab.learners.model.tags import asking, cluster_tags, keyword_tags, llm_tags
    from trimtab.types import user_text

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
        from trimtab.jobs import make

        tags = llm_tags(texts, asking(make.sampler(argument)), out / "tags.jsonl")
    else:
        raise unknown("tagger", kind, ("clusters", "keywords", "llm"))
    return replace(table, tags=tuple(map(tuple, tags)))


def method_settings(given: list[str] | None) -> dict[str, Any]:
    """name=value pairs; a value that reads as a number or true/false is one."""
    import json

    from trimtab.errors import InputError

    out: dict[str, Any] = {}
    for item in given or ():
        name, value = assignment("--set", item, "name=value, such as beta=0.1")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
        if str(out[name]).lower() in ("nan", "inf", "infinity", "-inf", "-infinity"):
            raise InputError(f"--set {item!r}: {name} must be a finite number")
    return out


def known_prices(matrix: Any, given: list[str] | None) -> list[float]:
    """Dollars a call of each model: as given, or else the mean of its cells in the table; NaN where neither is."""
    import numpy as np

    flags = given_prices(given)
    if odd := sorted(set(flags) - set(matrix.models)):
        from trimtab.errors import unknown

        raise unknown("model in --price", odd[0], matrix.models)
    cells = np.asarray(matrix.price_PM)
    known = ~np.isnan(cells)
    mean = np.where(known.any(0), np.where(known, cells, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)
    return [flags.get(m, float(mean[i])) for i, m in enumerate(matrix.models)]


def money(value: Any, reward: Any, prices: list[float]) -> dict[str, Any]:
    """AIQ, RouterArena's score and, for two models, APGR and CPT; nothing where a price is unknown."""
    import numpy as np

    from trimtab.evaluation.pages.routing import exchange_rates
    from trimtab.evaluation.routing.measures import aiq, arena_score, frontier, route, two_models

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


def ranks(value: Any, reward: Any, tags: Any, models: Any) -> dict[str, Any]:
    """MTR and %Uplift over the tags as subsets: each model among the models, the router alone against them."""
    import numpy as np

    from trimtab.evaluation.routing.measures import mean_rank, route, uplift

    names = sorted({t for row in tags for t in row})
    wide = np.column_stack([reward, route(value, reward)])
    at = [np.array([t in row for row in tags]) for t in names]
    score = np.array([[v[~np.isnan(v)].mean() if (~np.isnan(v)).any() else np.nan for v in wide[a].T] for a in at])
    if not names or np.isnan(score).any():
        return {}
    pool = range(len(models))
    rank, share = mean_rank(score, candidates=pool), uplift(score, candidates=pool)
    systems = [*models, "router"]
    return {"subsets": len(names), "mtr": dict(zip(systems, rank.tolist(), strict=True)),
            "uplift": dict(zip(systems, share.tolist(), strict=True))}  # fmt: skip


def best_single(matrix: Any) -> str:
    """The model with the highest mean reward in the table, as if all had answered all prompts."""
    from trimtab.learners.model.common import levels

    return matrix.models[int(levels(matrix.reward_PM).mean_M.argmax())]


def encoder_of(folder: str, asked: str | None) -> str:
    """The --encoder that a saved router's card asks for. InputError when `asked` is another."""
    from trimtab.errors import InputError, ModelError
    from trimtab.json_file import read_json

    kinds: Any = {"encoder?": (dict, type(None)), "encoder.kind?": str, "encoder.model?": str}
    card = read_json(
        Path(folder) / "router.json",
        "a router's card",
        kinds,
        do=f"{folder} holds no router; fit one with `trimtab fit router`",
        error=ModelError,
    )
    read = card.get("encoder") or {}
    kinds = {"hashed n-grams": "ngrams", "encoder": "minilm", "both": "both", "static": "static"}
    own = kinds.get(read.get("kind", ""), "")
    if read.get("kind") == "encoder" and Path(read["model"]).is_dir():
        own = read["model"]
    if asked and own and asked != own and card.get("head") != "constant":
        raise InputError(f"the router in {folder} was fitted with --encoder {own}, not {asked}; leave the option out")
    return own or asked or NGRAMS


def given_prices(given: list[str] | None) -> dict[str, float]:
    """Dollars a call by model, from --price flags."""
    return numbers("--price", given, "model=dollars, such as gpt=0.002", last=True, least=0)
