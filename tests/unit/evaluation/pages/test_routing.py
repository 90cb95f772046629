"""The routing report: the numbers of its figures by hand, and the page in a real browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.errors import StoreError
from trimtab.evaluation.pages.routing import (
    confusion_figure,
    exchange_rates,
    frontier_figure,
    tag_figure,
    write_routing_report,
)
from trimtab.testing import prompt

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
R = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
V = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.6, 0.5]])  # wrong on the second prompt
PRICE = np.array([4.0, 1.0])


def matrix(reward=R, names=("big<b>", "small")):
    prompts = tuple(prompt(f"text {i}", id=str(i)) for i in range(len(reward)))
    return ResponseMatrix(prompts, names, reward, tuple((("x",), ("x", "y"), ("y",), ("y",))[: len(reward)]))


def test_frontier_runs_from_the_best_to_the_cheapest():
    spec = frontier_figure({"router": V}, matrix(), PRICE)
    router, models, oracle = spec["data"]
    assert router["x"][0] == (4 + 1 + 1 + 4) / 4 and router["y"][0] == 0.75
    assert router["x"][-1] == 1.0 and router["y"][-1] == 0.5  # all prompts to the cheap one
    assert models["x"] == [4.0, 1.0] and models["y"] == [0.75, 0.5] and models["text"][0] == "big&lt;b&gt;"
    assert oracle["y"] == [1.0] and oracle["x"] == [(4 + 4 + 1 + 1) / 4]  # of equals the cheaper
    assert exchange_rates(V, [1.0, 1.0]) == [0.0]


def test_tags_and_confusion_by_hand():
    tags = tag_figure("router", V, matrix())["data"][0]
    assert tags["y"] == ["y (3)", "x (2)"] and tags["x"] == ["big&lt;b&gt;", "small", "router", "oracle"]
    assert tags["text"][1] == ["1.00", "0.00", "0.50", "1.00"]
    np.testing.assert_allclose(tags["z"][1], [0.5, -0.5, 0.0, 0.5])
    share = confusion_figure("router", V, matrix())["data"][0]
    assert share["text"] == [["12", "25"], ["38", "25"]]  # rows from below: big, then small; a tie is shared


def page_data(path):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    return json.loads(found)


def test_report_has_every_null_and_says_when_there_is_no_price(tmp_path):
    path = write_routing_report(tmp_path / "a" / "r.html", {"router": V}, matrix(), best=0, price_M=PRICE, draws=50)
    data = page_data(path)
    rows = {r["name"]: r for r in data["table"]["rows"]}
    assert list(rows) == ["router", "random", "best single", "always big<b>", "always small", "oracle"]
    assert rows["router"]["reward"]["mean"] == 0.75 and rows["oracle"]["difference"]["mean"] == 0.25
    assert [e["values"][0] for e in data["extra"]] == ["2.5", "75%"]
    assert len(data["extra"][1]["values"]) == len(rows) and data["table"]["baseline"] == "best single"
    assert len(data["figures"]) == 4
    holes = matrix(np.where(R == 0, np.nan, R))
    data = page_data(write_routing_report(tmp_path / "r.html", {"router": V}, holes, best=0, draws=50))
    assert len(data["figures"]) == 3 and "no cost-quality frontier" in data["notes"][0]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="check the path and its permissions"):
        write_routing_report(tmp_path / "file" / "r.html", {"router": V}, matrix(), best=0, draws=50)


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_a_browser_draws_every_figure_and_all_columns(tmp_path):
    path = write_routing_report(tmp_path / "r.html", {"router": V}, matrix(), best=0, price_M=PRICE, draws=50)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    body = done.stdout.split("<script", 1)[0]
    assert 'data-ready="yes"' in done.stdout and body.count('class="plot js-plotly-plot"') == 4
    assert "minus best single" in body and "dollars a prompt" in body and "always big&lt;b&gt;" in body
