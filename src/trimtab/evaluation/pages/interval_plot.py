"""A comparison to a small SVG: systems from the best down, each minus the best with its interval. Needs no library.

A whisker that reaches the line at 0 is a system that cannot be told from the best. The sentence below speaks of all
pairs. Text of others is escaped, and the picture reads in light and dark.
"""

from xml.sax.saxutils import escape

from trimtab.evaluation.comparison import KINDS, Comparison
from trimtab.evaluation.metrics import Interval
from trimtab.terminal import visible

_ROW, _LEFT, _WIDE, _RIGHT = 26, 300, 420, 20
_COLOUR = {"best": ("#1a7f37", "#6ee7a0"), "apart": ("#b3261e", "#ff8a80"), "not": ("#6b7280", "#a0a7b4")}
"""Light and dark, by role."""
_STYLE = (
    "<style>svg{background:#fff;color:#1a1a1a;font:13px system-ui,sans-serif}"
    + "text{fill:currentColor}.small{font-size:11px}"
    + "".join(f".{role} *{{fill:{light};stroke:{light}}}" for role, (light, _) in _COLOUR.items())
    + "@media(prefers-color-scheme:dark){svg{background:#16181c;color:#e6e6e6}"
    + "".join(f".{role} *{{fill:{dark};stroke:{dark}}}" for role, (_, dark) in _COLOUR.items())
    + "}</style>"
)


def interval_plot(found: Comparison) -> str:
    """SVG text of the ranked intervals."""
    best, *others = found.means
    gaps = {name: found[name, best] for name in others}
    low, high = _range(list(gaps.values()))
    bottom = 44 + _ROW * len(found.means)

    def x(value: float) -> float:
        return round(_LEFT + _WIDE * (value - low) / (high - low), 1)

    parts = [f'<text x="{_LEFT}" y="18">minus {_text(best, 60)}</text>']
    parts.append(f'<line x1="{x(0)}" x2="{x(0)}" y1="28" y2="{bottom}" stroke="currentColor" stroke-dasharray="3 3"/>')
    for i, (name, mean) in enumerate(found.means.items()):
        y = 44 + _ROW * i
        parts.append(f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{_text(name, 30)}  {mean.mean:.3f}</text>')
        gap = gaps.get(name, Interval(0.0, 0.0, 0.0))
        role = "best" if name == best else "apart" if gap.verdict == "worse" else "not"
        whisker = "" if gap.lower != gap.lower else (
            f'<line x1="{x(gap.lower)}" x2="{x(gap.upper)}" y1="{y}" y2="{y}" stroke-width="2"/>'
        )  # fmt: skip
        dot = f'<circle cx="{x(gap.mean)}" cy="{y}" r="5"/>'
        parts.append(f'<g class="{role}"><title>{_text(name, 200)}: {gap.show("+.3f")}</title>{whisker}{dot}</g>')
    for value in (low, 0.0, high):
        parts.append(f'<text class="small" x="{x(value)}" y="{bottom + 14}" text-anchor="middle">{value:+.3f}</text>')
    told = (
        found.verdict if len(found.verdict) <= 110 else found.verdict.split(". ")[0].rstrip(".") + ".",
        KINDS[found.kind],
    )
    parts += [
        f'<text class="small" x="12" y="{bottom + 38 + 16 * i}">{_text(t, 130)}</text>' for i, t in enumerate(told)
    ]
    size = f'width="{_LEFT + _WIDE + _RIGHT + 20}" height="{bottom + 66}"'
    title = f"<title>{_text(found.verdict, 400)}</title>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{title}{_STYLE}{"".join(parts)}</svg>\n'


def _range(gaps: list[Interval]) -> tuple[float, float]:
    ends = [e for g in gaps for e in (g.mean, g.lower, g.upper) if e == e]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    edge = 0.05 * (high - low) or 0.05
    return low - edge, high + edge


def _text(text: str, longest: int) -> str:
    line = visible(" ".join(text.split()))
    return escape(line if len(line) <= longest else line[: longest - 3] + "...", {'"': "&quot;"})
