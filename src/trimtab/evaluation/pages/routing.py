"""Routers' values and a response matrix to ONE offline HTML file: table, frontier, tags, confusion with the oracle.

The page is that of report.py. Every row is set against the best single model of the training prompts, because that is
what a router must beat. It fits nothing, and computes nothing that routing.py does not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.evaluation.pages.figures import headline_figure
from trimtab.evaluation.pages.report import machine, write_page
from trimtab.evaluation.pages.shell import label
from trimtab.evaluation.routing.measures import confusion, frontier, route, routing_table
from trimtab.evaluation.table import Table, plain

Array = npt.NDArray[np.float64]
Spec = dict[str, Any]
_SHADES = [[0.0, "rgba(196,77,52,0.85)"], [0.5, "rgba(128,128,128,0.08)"], [1.0, "rgba(32,120,110,0.85)"]]
"""Worse, equal, better: seen on light and on dark."""
_DEPTH = [[0.0, "rgba(32,120,110,0.0)"], [1.0, "rgba(32,120,110,0.9)"]]


def write_routing_report(
    path: str | Path, values: Mapping[str, npt.ArrayLike], matrix: ResponseMatrix, *, best: int | npt.NDArray[np.intp],
    price_M: npt.ArrayLike | None = None, meta: Mapping[str, Any] | None = None, notes: Sequence[str] = (),
    title: str = "What routing bought", draws: int = 2000,
) -> Path:  # fmt: skip
    """Writes the report to `path` and returns it. The first of `values` (names to (P, M) expected rewards on the
    prompts of `matrix`) is the one whose tags and confusion are drawn.

    `best` is the column of the best single model of the training prompts, or one a prompt. Without `price_M` (dollars a
    call) there is no frontier, and a note says so. Where rewards are missing the page is about the prompts that all
    models were measured on, and says so. StoreError when the file cannot be written.
    """
    at = matrix.whole_P
    if not at.all():
        best = np.broadcast_to(best, len(at))[at]
        values, matrix = {n: np.asarray(v, float)[at] for n, v in values.items()}, matrix.common()
    known = price_M is not None and bool(np.isfinite(np.asarray(price_M, float)).all())
    price = np.asarray(price_M, float) if known else np.full(len(matrix.models), math.nan)
    table = routing_table(values, matrix, best=best, price_M=price, always=True, draws=draws)
    cost, share = ([r.more[k] for r in table.rows] for k in ("price", "share"))
    first = next(iter(values))
    figures = [
        _headline(table),
        tag_figure(first, values[first], matrix),
        confusion_figure(first, values[first], matrix),
    ]
    if known:
        figures.insert(1, frontier_figure(values, matrix, price))
    else:
        notes = [*notes, "no prices are known for every model, so there is no cost-quality frontier"]
    if not at.all():
        notes = [*notes, f"compared on the {at.sum()} of {len(at)} prompts that every model was measured on"]
    data = {
        "title": title, "table": table.plain(rewards=False),
        "notes": [*notes, *table.notes], "figures": figures, "meta": {**machine(), **plain(dict(meta or {}))},
        "rankings": [], "strategies": [], "groups": [], "greedy": {},
        "extra": [
            {"head": "dollars a prompt", "values": ["unknown" if math.isnan(c) else f"{c:.3g}" for c in cost]},
            {"head": "chose a best model", "values": [f"{s:.0%}" for s in share]},
        ],
    }  # fmt: skip
    return write_page(path, title, data)


def frontier_figure(values: Mapping[str, npt.ArrayLike], matrix: ResponseMatrix, price_M: Array) -> Spec:
    """Reward against dollars a prompt: a curve a router over exchange rates, and every model alone as a point."""
    reward = matrix.reward_PM
    traces: list[Spec] = []
    for i, (name, value) in enumerate(values.items()):
        points = frontier(value, reward, price_M, exchange_rates(value, price_M))
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": label(name), "x": [p["price"] for p in points],
            "y": [p["reward"] for p in points], "customdata": [p["exchange"] for p in points],
            "line": {"color": f"series{i % 8}", "width": 2}, "marker": {"color": f"series{i % 8}", "size": 6},
            "hovertemplate": "%{fullData.name}: %{y:.3f} at $%{x:.3g}, exchange %{customdata:.3g}<extra></extra>",
        })  # fmt: skip
    single = np.nanmean(reward, 0)
    traces.append({
        "type": "scatter", "mode": "markers+text", "name": "one model", "x": price_M.tolist(), "y": single.tolist(),
        "text": [label(m) for m in matrix.models], "textposition": "top center", "cliponaxis": False,
        "textfont": {"size": 10}, "marker": {"color": "muted", "size": 8, "symbol": "diamond"},
        "hovertemplate": "%{text}: %{y:.3f} at $%{x:.3g}<extra></extra>",
    })  # fmt: skip
    top = reward == np.nanmax(reward, 1, keepdims=True)
    cheapest = np.where(top, price_M, np.inf).argmin(1)
    traces.append({
        "type": "scatter", "mode": "markers", "name": "oracle", "x": [float(price_M[cheapest].mean())],
        "y": [float(np.nanmax(reward, 1).mean())], "marker": {"color": "better", "size": 11, "symbol": "star"},
        "hovertemplate": "oracle (cheapest best model): %{y:.3f} at $%{x:.3g}<extra></extra>",
    })  # fmt: skip
    axis: Spec = {"title": {"text": "dollars a prompt"}}
    if (price_M > 0).all() and price_M.max() > 20 * price_M.min():
        axis |= {"type": "log"}
    layout = {"xaxis": axis, "yaxis": {"title": {"text": "reward"}}, "height": 420}
    note = "A curve is one router at all exchange rates between a dollar and reward; left is cheaper, up is better."
    return {"kind": "wide", "title": "Quality at a cost", "note": note, "data": traces, "layout": layout}


def exchange_rates(value_PM: npt.ArrayLike, price_M: npt.ArrayLike, steps: int = 24) -> list[float]:
    """Rates at which decisions change: 0, then `steps` quantiles of the rates at which a prompt turns to a cheaper
    model, then one at which all are at their cheapest."""
    value, price = np.asarray(value_PM, float), np.asarray(price_M, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = (value[:, :, None] - value[:, None, :]) / (price[:, None] - price[None, :])
    turn = turn[np.isfinite(turn) & (turn > 0)]
    if not len(turn):
        return [0.0]
    return [0.0, *np.unique(np.quantile(turn, np.linspace(0, 1, steps))).tolist(), float(turn.max()) * 1.01]


def tag_figure(name: str, value_PM: npt.ArrayLike, matrix: ResponseMatrix) -> Spec:
    """Heat map: tags by models and router; colour is the reward less the tag's mean over models."""
    reward, routed = matrix.reward_PM, route(value_PM, matrix.reward_PM)
    columns = [*matrix.models, name, "oracle"]
    wide = np.column_stack([reward, routed, np.nanmax(reward, 1)])
    tags = sorted({t for row_ in matrix.tags for t in row_}) or ["all prompts"]
    at = [
        np.array([t in row_ for row_ in matrix.tags]) if any(matrix.tags) else np.ones(len(reward), bool) for t in tags
    ]
    mean = np.array([_column_means(wide[a]) for a in at])
    rest = mean - np.nanmean(mean[:, : len(matrix.models)], axis=1, keepdims=True)
    labels = [f"{t} ({int(a.sum())})" for t, a in zip(tags, at, strict=True)]
    spec = _heat(rest[::-1], mean[::-1], [label(c) for c in columns], [label(t) for t in labels][::-1], _SHADES)
    edge = float(np.nanmax(np.abs(rest))) or 1.0
    spec["data"][0] |= {"zmin": -edge, "zmax": edge}
    note = "Numbers: mean reward. Colour: better or worse than the mean over models of that tag, which is what routing "
    note += "can use. A tag whose row has one colour gains nothing from routing. In brackets: prompts."
    return {**spec, "title": "Reward by tag", "note": note}


def confusion_figure(name: str, value_PM: npt.ArrayLike, matrix: ResponseMatrix) -> Spec:
    """Heat map: share of prompts by the oracle's model (rows, ties shared) and the router's (columns)."""
    share = confusion(value_PM, matrix.reward_PM)
    models = [label(m) for m in matrix.models]
    spec = _heat(share[::-1], 100 * share[::-1], models, models[::-1], _DEPTH, form=".0f")
    spec["layout"]["xaxis"]["title"] = {"text": f"chosen by {label(name)}"}
    spec["layout"]["yaxis"]["title"] = {"text": "a best model was"}
    note = "Per cent of all prompts; where several models earned the most, each has its share of the prompt. The "
    note += f"diagonal sums to {np.trace(share):.0%}."
    return {**spec, "title": "Confusion against the oracle", "note": note}


def _headline(table: Table) -> Spec:
    spec = headline_figure(replace(table, rows=tuple(r for r in table.rows if not r.name.startswith("always "))))
    note = "Dot: mean over prompts. Whisker: 95 % interval of a paired bootstrap over prompts. Hollow: the interval "
    note += "holds 0. The best single model is that of the training prompts; the oracle knows the rewards."
    return {**spec, "title": "Reward minus the best single model's", "note": note}


def _heat(z: Array, shown: Array, x: list[str], y: list[str], scale: list, form: str = ".2f") -> Spec:
    text = [["" if math.isnan(v) else format(v, form) for v in row_] for row_ in shown]
    trace = {
        "type": "heatmap", "z": z.tolist(), "x": x, "y": y, "text": text, "texttemplate": "%{text}",
        "colorscale": scale, "showscale": False, "xgap": 2, "ygap": 2, "showlegend": False,
        "hovertemplate": "%{y}, %{x}: %{text}<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"side": "top", "tickangle": -35, "type": "category", "dtick": 1},
        "yaxis": {"type": "category", "dtick": 1},
        "height": 160 + 28 * len(y),
    }
    return {"kind": "wide", "title": "", "note": "", "data": [trace], "layout": layout}


def _column_means(rows: Array) -> Array:
    known = ~np.isnan(rows)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, rows, 0).sum(0) / np.maximum(count, 1), np.nan)
