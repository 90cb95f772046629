"""Two policies and texts to what changed in them: SAE features that moved, with intervals, snippets and a page.

Both models read the same texts, so a difference is the model's and not the texts'. The features are ranked by the mean
difference in units of its standard error over prompts: a steady small move stands above one loud prompt. It trains and
samples nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.evaluation.metrics import Interval, mean_interval, paired_bootstrap
from trimtab.evaluation.pages.shell import STYLE, escape, page
from trimtab.evaluation.table import plain

if TYPE_CHECKING:  # the report shows changes without torch
    from trimtab.learners.feature.changes import Snippet
    from trimtab.learners.feature.sae import SAE


@dataclass(frozen=True)
class Change:
    """One feature's mean activation under A and under B, their difference over prompts, and what excites it."""

    feature: int
    a: float
    b: float
    difference: Interval
    snippets: "tuple[Snippet, ...]" = ()


@dataclass(frozen=True)
class Changes:
    """The features that moved most, and how much moved in all."""

    changes: tuple[Change, ...]
    names: tuple[str, str]
    distance: Interval
    """Mean over prompts of |B − A| / |A|, Euclidean over all features."""
    prompts: int
    layer: int | None

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return plain(self)

    def __str__(self) -> str:
        a, b = self.names
        head = (
            f"layer {self.layer}, {self.prompts} prompts: features moved by {self.distance.show('.1%')} from {a} to {b}"
        )
        lines = [
            f"{c.feature:>7} {c.a:>9.4f} {c.b:>9.4f}   {c.difference.show('+.4f')}  {_line(c.snippets)}"
            for c in self.changes
        ]
        return "\n".join([head, f"{'feature':>7} {'A':>9} {'B':>9} {'B - A':>9}", *lines])


def feature_changes(
    a: Any, b: Any, sae: "SAE", data: Sequence[Any], *, top: int = 20, snippets: int = 3,
    names: tuple[str, str] = ("A", "B"),
) -> Changes:  # fmt: skip
    """The `top` features whose mean activation moved most from model `a` to model `b` (both LMs) on the same texts.

    Intervals are 95 % bootstraps over prompts for each feature by itself: among thousands of features some move by
    chance, so read the ranking as where to look. Snippets come from `b`, or from `a` where `b` has the feature off.
    """
    from trimtab.learners.feature.changes import mean_features, top_snippets

    a_PF, b_PF = mean_features(a, sae, data), mean_features(b, sae, data)
    gap_PF = (b_PF - a_PF).astype(np.float64)
    error_F = gap_PF.std(0) / np.sqrt(len(gap_PF))
    strength_F = np.abs(gap_PF.mean(0)) / np.maximum(error_F, 1e-12 + 0.01 * error_F.max(initial=0.0))
    order = [int(f) for f in np.argsort(-strength_F, kind="stable")[:top] if strength_F[f] > 0]
    found = [top_snippets(m, sae, data, order, count=snippets) for m in (b, a)] if snippets and order else [{}, {}]
    changes = tuple(
        Change(
            f, float(a_PF[:, f].mean()), float(b_PF[:, f].mean()), paired_bootstrap(gap_PF[:, f], draws=2000),
            tuple(found[0].get(f) or found[1].get(f) or ()),
        )
        for f in order
    )  # fmt: skip
    size_P = np.maximum(np.linalg.norm(a_PF, axis=1), 1e-12)
    distance = mean_interval(np.linalg.norm(gap_PF, axis=1) / size_P, draws=2000)
    return Changes(changes, names, distance, len(a_PF), sae.layer)


_TABLE = """table{border-collapse:collapse;width:100%}td,th{padding:.3em .6em;border-bottom:1px solid #ddd;
text-align:right;vertical-align:top}td.s,th.s{text-align:left;font-size:13px}mark{background:#fde68a}
svg{vertical-align:middle}"""


def features_html(changes: Changes, *, title: str = "Features that changed") -> str:
    """One self-contained page: a row a feature with its move, its interval drawn, and its snippets. No script."""
    a, b = (escape(n) for n in changes.names)
    ends = [abs(x) for c in changes.changes for x in (c.difference.lower, c.difference.upper) if np.isfinite(x)]
    scale = max(ends, default=0.0) or 1.0
    rows = "".join(
        f"<tr><td>{c.feature}</td><td>{c.a:.4f}</td><td>{c.b:.4f}</td><td>{c.difference.mean:+.4f}<br>"
        f'<span class="note">[{c.difference.lower:+.4f}, {c.difference.upper:+.4f}]</span></td>'
        f'<td>{_bar(c.difference, scale)}</td><td class="s">{"<br>".join(map(_marked, c.snippets))}</td></tr>'
        for c in changes.changes
    )
    d = changes.distance
    note = (
        f"Layer {changes.layer}, {changes.prompts} prompts; both models read the same texts. All features together "
        f"moved by {d.show('.1%')} of their length. Ranked by mean difference over its "
        "standard error; intervals are 95 % over prompts for each feature alone, not corrected for looking at all."
    )
    body = (
        f'<h1>{escape(title)}</h1><p>A = {a}, B = {b}</p><p class="note">{note}</p><table><thead><tr><th>feature</th>'
        f'<th>A</th><th>B</th><th>B − A</th><th></th><th class="s">where it is strongest</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    return page(title, body, STYLE + _TABLE)


def _bar(x: Interval, scale: float) -> str:
    """The difference as a bar from the middle, its interval as a line over it."""
    half, low, high, mean = 80, x.lower / scale, x.upper / scale, x.mean / scale
    colour = "#2166ac" if mean >= 0 else "#b2182b"
    left, width = half * (1 + min(mean, 0.0)), half * abs(mean)
    line = f'<path d="M{half * (1 + low):.1f} 8H{half * (1 + high):.1f}" stroke="#222"/>' if np.isfinite(low) else ""
    return (
        f'<svg width="{2 * half}" height="16" role="img" aria-label="{x.mean:+.4f}">'
        f'<path d="M{half} 0V16" stroke="#999"/>'
        f'<rect x="{left:.1f}" y="4" width="{width:.1f}" height="8" fill="{colour}"/>{line}</svg>'
    )


def _marked(s: "Snippet") -> str:
    before, token, after = (escape(x) for x in (s.before, s.token, s.after))
    return f"{before}<mark>{token}</mark>{after} ({s.value:.2f})"


def _line(snippets: "Sequence[Snippet]") -> str:
    return " | ".join(f"{s.before[-20:]}[{s.token}]{s.after[:12]}".replace("\n", " ") for s in snippets[:2])
