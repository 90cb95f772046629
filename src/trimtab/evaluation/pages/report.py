"""A table, curves and groups to ONE HTML file that works offline, with a browser of every group.

Everything is inside: plotly, style, script, data (see shell.py); all text is shown as text. It computes no number of
the table or the curves: it shows those it is given.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from trimtab.errors import InputError
from trimtab.evaluation.choosing import Values, aligned
from trimtab.evaluation.curves import Figure, PassRate
from trimtab.evaluation.pages.features import Changes
from trimtab.evaluation.pages.figures import (
    changes_figure,
    group_figures,
    headline_figure,
    line_figure,
    pass_rate_figure,
)
from trimtab.evaluation.pages.shell import page
from trimtab.evaluation.table import Table, plain
from trimtab.publish import publish_text, reporting
from trimtab.types import Completion, Group, Message, message_text

Choices = Mapping[str, Sequence[Sequence[int]]]
"""A strategy's name to the indices it would take, a sequence a group: what `evaluation.choices` returns."""


def write_report(
    path: str | Path, table: Table, figures: Sequence[Figure] = (), groups: Sequence[Group] = (), *,
    values: Mapping[str, Values] | None = None, choices: Choices | None = None,
    greedy_groups: Sequence[Group] | None = None, pass_rates: Sequence[PassRate] = (),
    changes: Mapping[str, Changes] | None = None,
    meta: Mapping[str, Any] | None = None, title: str = "What each strategy bought", max_groups: int = 1000,
) -> Path:  # fmt: skip
    """Writes the report to `path` and returns it.

    `values` (rankings) and `choices` (which completions each strategy takes) are aligned with `groups` and shown in the
    browser of groups, which holds the first `max_groups` and says so. `meta` is shown as it is: model, revision, seeds;
    date, versions and machine are added. `changes` (a method's name to `feature_changes`) are drawn, a figure each.
    InputError when values or choices do not fit the groups; StoreError when the
    file cannot be written.
    """
    groups = list(groups)
    values, choices = values or {}, choices or {}
    for name, picked in choices.items():
        if len(picked) != len(groups):
            raise InputError(f"choices of {name!r} are for {len(picked)} groups, there are {len(groups)}")
    rankings = {name: aligned(groups, name, v) for name, v in values.items()}
    notes = list(table.notes)
    if len(groups) > max_groups:
        notes.append(f"the browser below holds the first {max_groups:,} of {len(groups):,} groups")
    plots = [headline_figure(table), *map(line_figure, figures)]
    plots += [pass_rate_figure(pass_rates)] if pass_rates else []
    plots += [changes_figure(name, c) for name, c in (changes or {}).items()]
    data = {
        "title": title,
        "table": table.plain(rewards=False),
        "notes": notes,
        "figures": plots + group_figures(groups),
        "meta": {**machine(), **plain(table.meta), **plain(dict(meta or {}))},
        "rankings": list(values),
        "strategies": list(choices),
        "groups": [
            _group(g, [v[i].tolist() for v in rankings.values()], [list(c[i]) for c in choices.values()])
            for i, g in enumerate(groups[:max_groups])
        ],
        "greedy": _greedy(greedy_groups or (), {g.prompt.id for g in groups[:max_groups]}),
    }
    return write_page(path, title, data)


def write_page(path: str | Path, title: str, data: Mapping[str, Any]) -> Path:
    """Writes a report's page, folders included, and returns its path. StoreError when the file cannot be written."""
    path = Path(path)
    with reporting(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    publish_text(path, report_page(title, plain(data)))
    return path


def report_page(title: str, data: Mapping[str, Any]) -> str:
    """The HTML text: body, style, plotly, script and data in one."""
    from plotly.offline import get_plotlyjs

    body, style, script = (
        (files("trimtab.evaluation.pages") / name).read_text(encoding="utf-8")
        for name in ("report.html", "report.css", "report.js")
    )
    return page(title, body, style, (get_plotlyjs(), script), data)


def machine() -> dict[str, str]:
    """Date (UTC), versions and machine of this process, for the report's facts."""
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": sys.version.split()[0],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    for package in ("trimtab", "torch", "transformers", "openvino-genai", "numpy"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def prompt_text(messages: Sequence[Message]) -> str:
    """Messages as text to read: the role above each, unless there is a single one of the user or raw text."""
    if len(messages) == 1 and messages[0].get("role") in ("user", "text"):
        return message_text(messages[0])
    return "\n\n".join(f"{m.get('role', '?')}:\n{message_text(m)}" for m in messages)


def _group(group: Group, values: list[list[float]], chosen: list[list[int]]) -> dict[str, Any]:
    return {
        "id": group.prompt.id,
        "prompt": prompt_text(group.prompt.messages),
        "target": None if group.prompt.target is None else _short(group.prompt.target),
        "completions": [_completion(c) for c in group.completions],
        "rewards": [r.value for r in group.rewards] or [None] * len(group.completions),
        "why": [r.note for r in group.rewards] or ["not scored"] * len(group.completions),
        "values": values,
        "chosen": chosen,
    }


def _completion(c: Completion) -> list[Any]:
    return [c.text or c.note, c.finish, c.length, round(sum(c.logprobs), 3) if c.logprobs else None, c.model]


def _greedy(groups: Sequence[Group], wanted: set[str]) -> dict[str, list[Any]]:
    return {
        g.prompt.id: [*_completion(g.completions[0]), *(r.value for r in g.rewards[:1])]
        for g in groups
        if g.completions and g.prompt.id in wanted
    }


def _short(target: Any) -> str:
    text = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False, default=str)
    return text if len(text) <= 2000 else f"{text[:2000]} … ({len(text):,} characters)"
