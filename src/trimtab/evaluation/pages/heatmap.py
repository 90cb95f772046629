"""Credit of tokens to pictures: one offline HTML file with numbers under the pointer, and colours for the terminal.

Blue raises the implicit reward, red lowers it, white is 0; one scale for the whole page (the 98th percentile of
absolute values). The A view colours each token's advantage, the V view the running sum. Everything is escaped.
It computes nothing: `trimtab.learners.token.credit` does.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.evaluation.pages.shell import STYLE, escape, page
from trimtab.learners.token.credit import Credit

CAVEAT = (
    "A token's colour is its advantage β(log π − log π_ref). Only advantages are identified: rewards can be moved "
    "along a prefix by any potential without changing them, so a token's credit is not its own reward. The sum over "
    "a finished answer is the implicit reward up to a constant of the prompt; different prompts do not compare."
)
_CARDS = """.row{display:flex;gap:1.5em;flex-wrap:wrap}
.card{flex:1 1 420px;border:1px solid #ddd;border-radius:6px;padding:.8em}
.prompt{white-space:pre-wrap;background:#f5f5f5;padding:.6em;border-radius:6px}.text{white-space:pre-wrap}
.t{border-radius:2px;cursor:default}.t:hover{outline:1px solid #333}.sum{color:#555;font-size:13px}
#tip{position:fixed;display:none;background:#222;color:#fff;padding:.3em .6em;border-radius:4px;font:13px monospace;
white-space:pre;pointer-events:none;z-index:9}button{font:inherit;margin-right:.5em}"""
_SCRIPT = """
const scale=JSON.parse(document.getElementById('data').textContent);let view='a';
function colour(x){const s=Math.max(-1,Math.min(1,x/scale[view]));const a=Math.abs(s).toFixed(3);
return s>=0?`rgba(33,102,172,${a})`:`rgba(178,24,43,${a})`}
function paint(){document.querySelectorAll('.t').forEach(e=>{const x=+e.dataset[view];e.style.background=colour(x);
e.style.color=Math.abs(x)/scale[view]>.6?'#fff':'#222'})}
document.querySelectorAll('button').forEach(b=>b.onclick=()=>{view=b.dataset.view;paint()});
const tip=document.getElementById('tip');
document.addEventListener('mousemove',e=>{const t=e.target.closest('.t');tip.style.display=t?'block':'none';
if(t){tip.textContent=`token      ${t.dataset.p}\\nadvantage  ${(+t.dataset.a).toFixed(4)}\\n`+
`value      ${(+t.dataset.v).toFixed(4)}\\n`+
`log π      ${t.dataset.l}\\nlog π_ref  ${t.dataset.r}`;tip.style.left=Math.min(e.clientX+12,innerWidth-260)+'px';
tip.style.top=(e.clientY+14)+'px'}});paint();
"""


def heatmap_html(
    credits: Sequence[Sequence[Credit]], prompts: Mapping[str, str], *, labels: Sequence[str] = ("chosen", "rejected"),
    title: str = "Credit of tokens",
) -> str:  # fmt: skip
    """One self-contained page: each prompt with its completions side by side (labelled in order, then by number).

    `prompts` maps prompt ids to the text shown. No network is touched when it opens.
    """
    flat = [c for group in credits for c in group]
    scale = {"a": _scale([c.advantage_T for c in flat]), "v": _scale([c.value_T for c in flat])}
    body = []
    for group in credits:
        prompt = escape(prompts.get(group[0].prompt_id, group[0].prompt_id)) if group else ""
        cards = "".join(_card(c, labels[i] if i < len(labels) else f"completion {i}") for i, c in enumerate(group))
        body.append(f'<div class="prompt">{prompt}</div><div class="row">{cards}</div><hr>')
    top = (
        f'<h1>{escape(title)}</h1><p><button data-view="a">A: advantage</button>'
        f'<button data-view="v">V: running sum</button></p><p class="note">{CAVEAT}</p>'
    )
    return page(title, f'{top}{"".join(body)}<div id="tip"></div>', STYLE + _CARDS, [_SCRIPT], scale)


def heatmap_text(credit: Credit, *, view: str = "a", scale: float | None = None) -> "object":
    """The completion as a `rich.text.Text` whose background colours are its credit ("a" advantage, "v" running sum)."""
    from rich.text import Text

    values = credit.advantage_T if view == "a" else credit.value_T
    scale = scale or _scale([values])
    text = Text()
    for piece, value in zip(credit.pieces, values, strict=True):
        text.append(piece, style=f"black on {_colour(value / scale)}")
    return text


def _card(credit: Credit, label: str) -> str:
    note = "" if credit.ended else " (cut: a partial return)"
    spans = "".join(
        f'<span class="t" data-p="{escape(piece, quote=True)}" data-a="{a:.6g}" data-v="{v:.6g}" data-l="{x:.4f}" '
        f'data-r="{r:.4f}">{escape(piece)}</span>'
        for piece, a, v, x, r in zip(
            credit.pieces, credit.advantage_T, credit.value_T, credit.logprobs, credit.ref_logprobs, strict=True
        )
    )
    total = f"implicit reward {credit.reward:+.3f}{note}, {len(credit.pieces)} tokens"
    head = f'<b>{escape(label)}</b> <span class="sum">{total}</span>'
    return f'<div class="card">{head}<div class="text">{spans}</div></div>'


def _scale(values: Sequence[np.ndarray]) -> float:
    flat = np.abs(np.concatenate(values)) if values else np.zeros(0)
    return float(np.quantile(flat, 0.98)) or 1.0 if flat.size else 1.0


def _colour(share: float) -> str:
    """White at 0 to blue at +1 and red at −1, as #rrggbb."""
    end = (33, 102, 172) if share >= 0 else (178, 24, 43)
    weight = min(abs(share), 1.0)
    return "#" + "".join(f"{round(255 + (c - 255) * weight):02x}" for c in end)
