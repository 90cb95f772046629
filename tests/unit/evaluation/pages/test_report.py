"""The report's data: hostile text stays data, NaN becomes null, limits are said, the page is one piece."""

import json
import math
import re

import numpy as np
import pytest

from trimtab.errors import InputError, StoreError
from trimtab.evaluation.metrics import Interval
from trimtab.evaluation.pages.figures import headline_figure
from trimtab.evaluation.pages.report import prompt_text, report_page, write_report
from trimtab.evaluation.pages.shell import embed_json
from trimtab.evaluation.run import compare
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Reward

HOSTILE = (
    "</script><script>alert(1)</script><!--\u2028{{PLOTLY}}<img src=x onerror=alert(2)> \ud800 \x00 'q' \"d\" &lt;"
)


def toy(n=3):
    rng = np.random.default_rng(0)
    return [
        Group(
            prompt(f"{HOSTILE} {p}", id=f"<{p}>"),
            tuple(Completion(f"{HOSTILE}{i}", "toy@0", i, i, "stop", None, (-1.0, -0.5)) for i in range(4)),
            (*(Reward(float(r)) for r in rng.integers(0, 2, 3)), Reward(math.nan, "why")),
        )
        for p in range(n)
    ]


def data_of(text):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def test_json_inside_a_script_element_holds_no_markup_and_comes_back_whole():
    text = embed_json({"a": HOSTILE})
    assert not set("<>&\u2028\u2029") & set(text)
    text.encode("utf-8")
    assert json.loads(text) == {"a": HOSTILE}


def test_the_page_holds_everything_once_and_nothing_is_substituted_twice():
    text = report_page("<b>t</b>", {"x": HOSTILE, "y": "{{SCRIPT}}"})
    assert "<title>&lt;b&gt;t&lt;/b&gt;</title>" in text
    assert text.count("<script") == 3 + text.count('"<script')
    assert data_of(text) == {"x": HOSTILE, "y": "{{SCRIPT}}"}
    assert "default-src 'none'" in text and not re.search(r"""(src|href)=["']?https?:""", text.split("<script>")[0])


def test_report_keeps_groups_values_choices_and_says_what_it_leaves_out(tmp_path):
    groups = toy()
    values = {"probe": [[0.0, 1.0, 2.0, math.nan]] * 3}
    table = compare(groups, values, soft=[])
    path = write_report(
        tmp_path / "deep" / "r.html", table, groups=groups, values=values, choices={"probe": [(2,)] * 3},
        greedy_groups=[Group(g.prompt, g.completions[:1], (Reward(math.nan, "down"),)) for g in groups],
        meta={"model": HOSTILE}, max_groups=2,
    )  # fmt: skip
    data = data_of(path.read_text())
    assert len(data["groups"]) == 2 and "first 2 of 3 groups" in " ".join(data["notes"])
    first = data["groups"][0]
    assert first["prompt"] == f"{HOSTILE} 0" and first["completions"][1] == [HOSTILE + "1", "stop", 2, -1.5, "toy@0"]
    assert first["rewards"][3] is None and first["why"][3] == "why"
    assert first["values"] == [[0, 1, 2, None]] and first["chosen"] == [[2]]
    assert data["greedy"][groups[0].prompt.id][5] is None and len(data["greedy"]) == 2
    assert data["meta"]["model"] == HOSTILE and data["meta"]["k"] == 4 and "date" in data["meta"]
    titles = [f["title"] for f in data["figures"]]
    assert titles == ["Expected reward", "Rewards", "Reward against length"]


def test_features_that_changed_are_a_figure(tmp_path):
    from trimtab.evaluation.pages.features import Change, Changes

    snippet = type("S", (), {"before": "a ", "token": HOSTILE, "after": " b", "value": 1.0})()
    moved = [Change(7, 1.0, 1.5, Interval(0.5, 0.25, 0.75, 4), (snippet,)), Change(3, 0.0, -1, Interval(-1, -2, 0, 4))]
    found = Changes(tuple(moved), ("start", "fpo"), Interval(0.1, 0.05, 0.2, 4), 4, 2)
    path = write_report(tmp_path / "r.html", compare(toy()), changes={"fpo": found})
    figure = next(f for f in data_of(path.read_text())["figures"] if f["title"] == "Features that changed: fpo")
    (trace,) = figure["data"]
    assert trace["x"] == [-1, 0.5] and trace["error_x"]["array"] == [1, 0.25]
    assert trace["y"][1].startswith("7 ") and "<script" not in str(trace) and "10.0%" in figure["note"]


def test_report_errors_say_what_to_do(tmp_path):
    groups = toy()
    table = compare(groups)
    with pytest.raises(InputError, match="choices of 'x' are for 1 groups, there are 3"):
        write_report(tmp_path / "r.html", table, groups=groups, choices={"x": [(0,)]})
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="check the path and its permissions"):
        write_report(tmp_path / "file" / "r.html", table)


def test_headline_marks_what_holds_zero():
    groups = [Group(g.prompt, g.completions[:2], (Reward(1.0), Reward(0.0))) for g in toy(16)]
    greedy = [Group(g.prompt, g.completions[:1], (Reward(float(i % 2)),)) for i, g in enumerate(groups)]
    up = {"best": [[1, 0]] * 16, "worst": [[0, 1]] * 16, "chance": [[0, 0]] * 16}
    figure = headline_figure(compare(groups, up, greedy_groups=greedy, soft=[]))
    marks = {t["name"]: (t["marker"]["symbol"], t["y"]) for t in figure["data"]}
    assert marks["better"] == ("circle", ["oracle", "best"])
    assert marks["worse"] == ("circle", ["worst"])
    assert marks["no difference shown"][0] == "circle-open" and "chance" in marks["no difference shown"][1]
    better = next(t for t in figure["data"] if t["name"] == "better")
    assert better["x"] == [0.5, 0.5] and all(w >= 0 for w in better["error_x"]["arrayminus"])


def test_prompt_text_names_roles_only_where_there_are_several():
    assert prompt_text([{"role": "user", "content": "hi"}]) == "hi"
    assert (
        prompt_text([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]) == "system:\ns\n\nuser:\nu"
    )
