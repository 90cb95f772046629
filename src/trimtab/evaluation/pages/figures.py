"""Table, curves and groups to plotly figures as plain dicts. Colours are left to the page, which knows light and dark.

A trace's colour is a role ("series0" ... "series7", "better", "worse", "null", "muted") that the page replaces; so the
same figure serves both themes. It imports no plotly and computes no statistic but histograms and binned means.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trimtab.evaluation.choosing import lengths
from trimtab.evaluation.curves import Figure, PassRate
from trimtab.evaluation.metrics import Interval, mean_interval
from trimtab.evaluation.pages.features import Changes
from trimtab.evaluation.pages.shell import label
from trimtab.evaluation.table import GREEDY, Table
from trimtab.types import Group

Spec = dict[str, Any]
_ROLE = {"better": "better", "worse": "worse", "no difference shown": "null", "": "muted"}
_MARK = {"better": "circle", "worse": "circle", "no difference shown": "circle-open", "": "circle"}
_POINTS = 2000


def headline_figure(table: Table) -> Spec:
    """Dot and whisker of every row against the baseline (of the reward itself when there is no such row)."""
    versus = any(r.difference is not None for r in table.rows)
    rows = [r for r in table.rows if not versus or r.difference is not None][::-1]  # plotly counts from below
    traces = []
    for verdict, role in _ROLE.items():
        mine = [(label(r.name), r.difference if versus else r.reward) for r in rows if r.verdict == verdict]
        if not mine:
            continue
        x = [i.mean if i else math.nan for _, i in mine]
        traces.append({
            "type": "scatter", "mode": "markers", "name": verdict or "interval", "y": [n for n, _ in mine], "x": x,
            "error_x": _whiskers([i for _, i in mine if i], role),
            "marker": {"color": role, "size": 11, "symbol": _MARK[verdict], "line": {"width": 2, "color": role}},
            "hovertemplate": "%{y}: %{x:+.3f} (" + (verdict or "95 % interval") + ")<extra></extra>",
        })  # fmt: skip
    layout = {
        "xaxis": {"tickformat": "+.2~f" if versus else ".2~f", "tickangle": 0, "nticks": 6},
        "yaxis": {"categoryorder": "array", "categoryarray": [label(r.name) for r in rows], "automargin": True},
        "shapes": [_rule("x", 0.0)] if versus else [],
        "height": 130 + 30 * len(rows),
    }
    note = "Dot: mean over prompts. Whisker: 95 % interval of a paired bootstrap over prompts. "
    note += (
        "Hollow: the interval holds 0, no difference was shown. " if versus else f"There is no {table.baseline} row. "
    )
    note += "The oracle knows the rewards; no strategy can beat it."
    return _spec(
        "headline", f"Expected reward minus {table.baseline}'s" if versus else "Expected reward", note, traces, layout
    )


def line_figure(figure: Figure) -> Spec:
    """Curves with their intervals as bands, and the horizontal lines they are read against."""
    traces: list[Spec] = []
    for i, curve in enumerate(figure.curves):
        role = "muted" if curve.name == "oracle" else f"series{i % 8}"
        x, lower, upper = list(curve.x), [y.lower for y in curve.y], [y.upper for y in curve.y]
        traces.append({
            "type": "scatter", "x": x + x[::-1], "y": upper + lower[::-1], "fill": "toself", "fillcolor": role,
            "opacity": 0.14, "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "mode": "lines",
            "legendgroup": curve.name,
        })  # fmt: skip
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": label(curve.name), "x": x,
            "y": [y.mean for y in curve.y],
            "line": {"color": role, "width": 2, "dash": "dot" if curve.name == "oracle" else "solid"},
            "marker": {"color": role, "size": 6}, "legendgroup": curve.name,
            "customdata": [[y.lower, y.upper] for y in curve.y],
            "hovertemplate": "%{fullData.name}, %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
            "<extra></extra>",
        })  # fmt: skip
    xs = sorted({x for c in figure.curves for x in c.x}) or [0.0]
    for name, line in figure.lines.items():
        ends = [xs[0], xs[-1]] if len(xs) > 1 else [xs[0] - 0.5, xs[0] + 0.5]
        traces.append({
            "type": "scatter", "mode": "lines", "name": label(name), "x": ends, "y": [line.mean] * 2,
            "line": {"color": "muted", "width": 1.5, "dash": "dash" if name == GREEDY else "longdashdot"},
            "hovertemplate": f"%{{fullData.name}}: {line}<extra></extra>",
        })  # fmt: skip
    axis: Spec = {"title": {"text": figure.x_title}}
    if figure.log_x and xs[0] > 0:
        axis |= {"type": "log", "tickvals": xs, "ticktext": [f"{x:g}" for x in xs]}
    elif figure.x_title == "β":  # 0 belongs on the axis, so positions are categories
        axis |= {"type": "category"}
        for t in traces:
            t["x"] = [f"{x:g}" for x in t["x"]]
    layout = {"xaxis": axis, "yaxis": {"title": {"text": figure.y_title}}}
    note = f"Bands: 95 % intervals over prompts. {figure.note}"
    return _spec("", figure.title, note.strip(), traces, layout)


def pass_rate_figure(rates: Sequence[PassRate]) -> Spec:
    """Mean z-scored value of every prompt against its pass rate, with each ranking's fitted line."""
    traces: list[Spec] = []
    says = []
    for i, rate in enumerate(rates):
        role = f"series{i % 8}"
        traces.append({
            "type": "scatter", "mode": "markers", "x": list(rate.pass_rate_P), "y": list(rate.value_P),
            "name": label(rate.name), "legendgroup": rate.name,
            "marker": {"color": role, "size": 6, "opacity": 0.45},
            "hovertemplate": "%{fullData.name}: mean reward %{x:.2f}, value %{y:+.2f}<extra></extra>",
        })  # fmt: skip
        if math.isfinite(rate.slope):
            ends = _ends(rate.pass_rate_P)
            traces.append({
                "type": "scatter", "mode": "lines", "x": ends, "y": [rate.intercept + rate.slope * x for x in ends],
                "line": {"color": role, "width": 2.5}, "showlegend": False, "hoverinfo": "skip",
                "legendgroup": rate.name,
            })  # fmt: skip
        says.append(f"{rate.name}: slope {rate.slope:+.2f}, pairs ordered rightly {rate.accuracy}")
    note = (
        "One dot a prompt. A steep line is capacity spent on how hard the prompt is; choosing uses only the order "
        f"within a prompt. {'; '.join(says)}."
    )
    layout = {"xaxis": {"title": {"text": "mean reward of the prompt"}}, "yaxis": {"title": {"text": "mean value (z)"}}}
    return _spec("", "Value against pass rate", note, traces, layout)


def changes_figure(name: str, changes: Changes) -> Spec:
    """The features that moved most from one model to another, with intervals, labelled by where they are strongest."""
    rows = changes.changes[::-1]  # plotly counts from below
    labels = [f"{c.feature} {label(c.snippets[0].token.strip()[:14]) if c.snippets else ''}" for c in rows]
    shown = ["<br>".join(f"{label(s.before)}<b>{label(s.token)}</b>{label(s.after)}" for s in c.snippets) for c in rows]
    trace = {
        "type": "scatter", "mode": "markers", "y": labels, "x": [c.difference.mean for c in rows],
        "error_x": _whiskers([c.difference for c in rows], "series0"), "marker": {"color": "series0", "size": 9},
        "customdata": [[c.a, c.b, text] for c, text in zip(rows, shown, strict=True)],
        "hovertemplate": "feature %{y}: %{customdata[0]:.3f} to %{customdata[1]:.3f}<br>%{customdata[2]}"
        "<extra></extra>",
    }  # fmt: skip
    a, b = changes.names
    note = (
        f"Mean activation at layer {changes.layer} on the same texts, {b} minus {a}; all features together moved by "
        f"{changes.distance.mean:.1%}. Whiskers: 95 % over prompts, each feature by itself."
    )
    layout = {
        "yaxis": {"categoryorder": "array", "categoryarray": labels, "automargin": True}, "shapes": [_rule("x", 0.0)],
        "xaxis": {"title": {"text": "change of mean activation"}}, "height": 120 + 24 * len(rows), "showlegend": False,
    }  # fmt: skip
    return _spec("wide", f"Features that changed: {name}", note, [trace], layout)


def group_figures(groups: Sequence[Group]) -> list[Spec]:
    """Histograms of completion rewards and of prompt means, and reward against length. Empty without groups."""
    if not groups:
        return []
    length, unit = lengths(groups)
    reward, size = np.concatenate([g.reward_N for g in groups]), np.concatenate(length)
    scored = np.isfinite(reward)
    missing = f"{int((~scored).sum()):,} of {len(reward):,} completions are unscored and not drawn."
    mean_P = [float(np.nanmean(g.reward_N)) for g in groups if np.isfinite(g.reward_N).any()]
    traces = [
        _histogram("completions", reward[scored].tolist(), "series0"),
        _histogram("prompts (mean reward)", mean_P, "series1"),
    ]
    share = {"title": {"text": "share"}, "tickformat": ".0%"}
    layout = {"xaxis": {"title": {"text": "reward"}}, "yaxis": share, "bargap": 0.08, "barmode": "group"}
    out = [_spec("", "Rewards", missing, traces, layout)]
    if scored.any():
        out.append(_length_figure(size[scored], reward[scored], unit))
    return out


def _length_figure(size: np.ndarray, reward: np.ndarray, unit: str) -> Spec:
    rng = np.random.default_rng(0)
    some = rng.permutation(len(size))[:_POINTS]
    spread = float(np.ptp(reward)) or 1.0
    jitter = rng.uniform(-0.02, 0.02, len(some)) * spread  # rewards are often 0 or 1: dots would hide each other
    bins = [b for b in np.array_split(np.argsort(size, kind="stable"), min(12, len(size))) if len(b)]
    means = [mean_interval(reward[b], draws=1000) for b in bins]
    traces: list[Spec] = [
        {"type": "scatter", "mode": "markers", "name": "completion", "x": size[some].tolist(),
         "y": (reward[some] + jitter).tolist(), "marker": {"color": "series0", "size": 4, "opacity": 0.35},
         "hovertemplate": f"%{{x}} {unit}, reward %{{y:.2f}}<extra></extra>"},
        {"type": "scatter", "mode": "lines+markers", "name": "mean of a twelfth",
         "x": [float(size[b].mean()) for b in bins], "y": [m.mean for m in means],
         "error_y": _whiskers(means, "series1"),
         "line": {"color": "series1", "width": 2}, "marker": {"color": "series1", "size": 6},
         "hovertemplate": f"about %{{x:.0f}} {unit}: %{{y:.3f}}<extra></extra>"},
    ]  # fmt: skip
    shown = f"{len(some):,} of {len(size):,} scored completions drawn, moved up or down a little to be seen. "
    note = shown + "Whiskers: 95 % over completions."
    layout = {"xaxis": {"title": {"text": f"length in {unit}"}}, "yaxis": {"title": {"text": "reward"}}}
    return _spec("", "Reward against length", note, traces, layout)


def _histogram(name: str, values: list[float], role: str) -> Spec:
    if not values:
        return {"type": "bar", "name": name, "x": [], "y": []}
    low, high = min(values), max(values)
    count, edges = np.histogram(values, bins=11, range=(low, high) if high > low else (low - 0.5, high + 0.5))
    return {
        "type": "bar", "name": name, "x": ((edges[:-1] + edges[1:]) / 2).tolist(), "y": (count / count.sum()).tolist(),
        "marker": {"color": role}, "customdata": count.tolist(),
        "hovertemplate": "%{fullData.name}, around %{x:.2f}: %{customdata} (%{y:.1%})<extra></extra>",
    }  # fmt: skip


def _whiskers(intervals: Sequence[Interval], role: str) -> Spec:
    return {
        "type": "data", "symmetric": False, "array": [i.upper - i.mean for i in intervals],
        "arrayminus": [i.mean - i.lower for i in intervals], "color": role, "thickness": 2, "width": 4,
    }  # fmt: skip


def _rule(axis: str, at: float) -> Spec:
    across = "y" if axis == "x" else "x"
    line = {"color": "muted", "width": 1.5, "dash": "dash"}
    return {"type": "line", f"{axis}0": at, f"{axis}1": at, f"{across}ref": "paper", f"{across}0": 0, f"{across}1": 1,
            "line": line}  # fmt: skip


def _ends(x: Sequence[float]) -> list[float]:
    finite = [v for v in x if math.isfinite(v)] or [0.0]
    return [min(finite), max(finite)]


def _spec(kind: str, title: str, note: str, traces: list[Spec], layout: Spec) -> Spec:
    return {"kind": kind, "title": title, "note": note, "data": traces, "layout": layout}
