"""The report in a real browser: offline, without an error, hostile text as text, the groups searched and paged.

Chromium is driven through its DevTools pipe (two file descriptors), so the test needs no driver and no Python package.
"""

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from trimtab.evaluation import curves
from trimtab.evaluation.choosing import choices, strategies
from trimtab.evaluation.pages.report import write_report
from trimtab.evaluation.run import compare
from trimtab.types import Completion, Group, Prompt, Reward

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]

HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    "<!-- <b>bold</b> &amp; {{DATA}} \u2028 <svg onload=window.hacked=3> https://example.com/x.png"
)


def synthetic(prompts=100, n=32, seed=0):
    """Sums that a made-up model gets right the more often the easier they are; values that see part of the reward."""
    rng = np.random.default_rng(seed)
    groups, greedy, values = [], [], {"MSE probe": [], "CE probe": [], "PG probe": []}
    for p in range(prompts):
        a, b, c = rng.integers(10, 999, 3)
        skill = rng.beta(0.8, 1.4)
        prompt = Prompt(f"sum-{p:04d}", ({"role": "user", "content": f"What is {a} + {b} - {c}?"},), str(a + b - c))

        def answer(i, right, a=a, b=b, c=c):
            wrong = int(a + b - c + (rng.choice([-100, -10, 10, 1, -1]) if not right else 0))
            steps = "\n".join(f"Step {s}: carry the {rng.integers(0, 9)}." for s in range(rng.integers(1, 6)))
            logprobs = tuple((-rng.exponential(0.2 if right else 0.3, rng.integers(20, 80))).tolist())
            text = f"{a} + {b} = {a + b}\n{steps}\nThe answer is {wrong}"
            return Completion(text, "made-up@1", i, i, "length" if rng.random() < 0.03 else "stop", None, logprobs)

        right_N = rng.random(n) < skill
        completions = tuple(answer(i, right) for i, right in enumerate(right_N))
        rewards = tuple(
            Reward(float("nan"), "the verifier ran out of time") if rng.random() < 0.01 else Reward(float(r))
            for r in right_N
        )
        groups.append(Group(prompt, completions, rewards))
        good = rng.random() < min(1.0, skill + 0.08)
        greedy.append(Group(prompt, (answer(0, good),), (Reward(float(good)),)))
        for (name, v), (signal, between) in zip(values.items(), [(0.5, 3.0), (0.9, 2.0), (1.3, 0.4)], strict=True):
            v.append(signal * right_N + between * skill + rng.normal(0, 1, n))
            assert name
    return groups, greedy, values


def make_report(path, prompts=100, n=32):
    groups, greedy, values = synthetic(prompts, n)
    nasty = groups[0].completions[0]
    nasty = Completion(HOSTILE, nasty.model, 0, 0, "stop", None, nasty.logprobs)
    groups[0] = Group(groups[0].prompt, (nasty, *groups[0].completions[1:]), groups[0].rewards)
    extract = last_number
    table = compare(groups, values, greedy_groups=greedy, soft=["PG probe"], extract=extract, k=n // 2, draws=2000)
    figures = [
        curves.reward_against_k(groups, values, greedy_groups=greedy, draws=500, permutations=2),
        curves.reward_against_beta(groups, values, greedy_groups=greedy, draws=500, permutations=2),
    ]
    every_way, _ = strategies(groups, values, soft=[], extract=extract)
    return write_report(
        path, table, figures, groups, values=values, choices=choices(groups, every_way), greedy_groups=greedy,
        pass_rates=curves.value_against_pass_rate(groups, values, draws=500),
        meta={"model": "made-up@1", "seeds": [0], "note": HOSTILE},
    )  # fmt: skip


def last_number(text):
    return text.rsplit(" ", 1)[-1] if "answer is" in text else None


class Chromium:
    """A headless Chromium with one page, spoken to in the DevTools protocol over --remote-debugging-pipe."""

    def __init__(self, profile: Path):
        to_child, self._write = os.pipe()
        self._read, from_child = os.pipe()

        def descriptors():  # the protocol wants exactly 3 (in) and 4 (out); copies first, as either may be taken
            a, b = os.dup(to_child), os.dup(from_child)
            high = max(a, b, 10)
            os.dup2(a, high + 1), os.dup2(b, high + 2)
            os.dup2(high + 1, 3), os.dup2(high + 2, 4)

        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
            f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [BROWSER, *flags], preexec_fn=descriptors, close_fds=False, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_child), os.close(from_child)
        self._inbox: queue.Queue = queue.Queue()
        self.events: list[dict] = []
        self._number, self._session = 0, None
        threading.Thread(target=self._listen, daemon=True).start()
        page = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def _listen(self):
        rest = b""
        while data := os.read(self._read, 1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for message in messages:
                self._inbox.put(json.loads(message))

    def __call__(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._inbox.get(timeout=60)
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]
            self.events.append(reply)

    def js(self, expression):
        result = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression, seconds=30.0):
        end = time.monotonic() + seconds
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never came true: {expression}"
            self.js("new Promise(requestAnimationFrame)")

    def open(self, path, width=1280, height=900, dark=False):
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[feature])
        self("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.documentElement?.dataset.ready === 'yes'")

    def screenshot(self, path, clip=None):
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        area = clip or {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self("Page.captureScreenshot", captureBeyondViewport=True, clip=area)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def problems(self):
        """Console errors and warnings, exceptions, and requests for anything but the page itself."""
        out = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                out.append(params["exceptionDetails"])
            if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                out.append(params["args"])
            if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                out.append(params["entry"])
            if method == "Network.requestWillBeSent" and params["request"]["url"].split(":")[0] not in ("file", "data"):
                out.append(params["request"]["url"])
        return out

    def requests(self):
        sent = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def close(self):
        try:
            self._session = None
            self("Browser.close")
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._write)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Chromium(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report") / "report.html", prompts=60, n=16)


def listed(browser):
    return browser.js("[...document.querySelectorAll('#list .text')].map(x => x.textContent)")


def cards(browser):
    return browser.js("document.querySelectorAll('#group .completion').length")


def search(browser, text):
    browser.js(f"search_box = document.getElementById('search'); search_box.value = {json.dumps(text)};"
               "search_box.dispatchEvent(new Event('input')); true")  # fmt: skip


@pytest.mark.parametrize("width, dark", [(1280, False), (1280, True), (390, False)])
def test_it_opens_without_an_error_or_a_request_and_fits_the_width(browser, report, width, dark):
    browser.open(report, width=width, dark=dark)
    browser.wait("document.querySelectorAll('.js-plotly-plot svg.main-svg').length >= 12")  # two layers a figure
    assert browser.problems() == []
    assert browser.requests() == [report.resolve().as_uri()]
    assert browser.js("document.documentElement.scrollWidth") == width
    background = browser.js("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == dark


def test_the_table_is_there_with_its_intervals_and_verdicts(browser, report):
    browser.open(report)
    rows = browser.js(
        "[...document.querySelectorAll('#table tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    names = [r[0] for r in rows]
    assert names[:2] == ["pass@1", "greedy"] and names[-1] == "oracle" and "majority vote" in names
    assert all("[" in r[1] and "]" in r[1] for r in rows)
    assert {r[3] for r in rows} <= {"better", "worse", "no difference shown", ""} and rows[-1][3] == "better"
    assert "unscored" in browser.js("document.getElementById('notes').textContent")


def test_hostile_text_shows_as_text_and_does_not_run(browser, report):
    browser.open(report)
    shown = browser.js("[...document.querySelectorAll('#group pre')].map(x => x.textContent)")
    assert HOSTILE in shown
    assert HOSTILE in browser.js("[...document.querySelectorAll('#facts dd')].map(x => x.textContent)")
    browser.js("new Promise(done => setTimeout(done, 50))")  # time for an onerror to fire
    assert browser.js("typeof window.hacked") == "undefined"
    assert browser.js("document.querySelectorAll('main img, main svg[onload], #group b b').length") == 0
    assert browser.problems() == []


def test_injected_markup_could_not_run_even_so(browser, report):
    browser.open(report)
    browser.js("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 1\">'); true")
    browser.wait("document.images.length === 1 && document.images[0].complete")
    browser.js("new Promise(done => setTimeout(done, 50))")
    assert browser.js("typeof window.hacked") == "undefined"
    assert browser.problems() != [], "the policy should have reported the inline handler"
    assert not any(str(p).startswith("http") for p in browser.problems())


def test_groups_are_paged_searched_and_filtered(browser, report):
    browser.open(report)
    groups, _, values = synthetic(60, 16)
    assert len(listed(browser)) == 25 and cards(browser) == 1 + 12  # greedy, and a dozen of sixteen
    browser.js("document.getElementById('more').click()")
    assert cards(browser) == 1 + 16
    first = listed(browser)
    for button, page in (("next", 2), ("next", 3), ("previous", 2)):
        browser.js(f"document.getElementById('{button}').click()")
        assert browser.js("document.getElementById('page').textContent") == f"page {page} of 3"
    assert not set(listed(browser)) & set(first)

    wanted = groups[41].prompt.messages[0]["content"]
    search(browser, wanted.upper())
    browser.wait("document.querySelectorAll('#list li').length === 1")
    assert listed(browser) == [wanted]
    assert browser.js("document.querySelector('#group h3').textContent") == "sum-0041"
    search(browser, "no such text anywhere")
    browser.wait("document.querySelectorAll('#list li').length === 0")
    assert "No prompt matches" in browser.js("document.getElementById('group').textContent")
    search(browser, "")
    browser.wait("document.querySelectorAll('#list li').length === 25")

    browser.js("f = document.getElementById('filter'); f.value = 'some completion is unscored';"
               "f.dispatchEvent(new Event('change')); true")  # fmt: skip
    unscored = sum(bool(np.isnan(g.reward_N).any()) for g in groups)
    assert browser.js("document.getElementById('count').textContent") == f"{unscored} of 60 prompts"
    missed = sum(
        not g.reward_N[int(np.argmax(v))] >= np.nanmax(g.reward_N)
        for g, v in zip(groups, values["PG probe"], strict=True)
    )
    browser.js("f.value = 'a better one was missed by PG probe'; f.dispatchEvent(new Event('change')); true")
    assert browser.js("document.getElementById('count').textContent") == f"{missed} of 60 prompts"


def test_completions_sort_by_value_and_show_who_chose_them(browser, report):
    browser.open(report)
    _, _, values = synthetic(60, 16)
    browser.js("o = document.getElementById('order'); o.value = 'value of PG probe';"
               "o.dispatchEvent(new Event('change')); true")  # fmt: skip
    top = browser.js("document.querySelectorAll('#group .completion')[1].textContent")
    assert top.startswith(f"#{int(np.argmax(values['PG probe'][0]))}") and "PG probe" in top
    chips = browser.js(
        "[...document.querySelectorAll('#group .completion')[1].querySelectorAll('.pick')].map(x => x.textContent)"
    )
    assert "PG probe" in chips


def test_the_keyboard_moves_through_the_list(browser, report):
    browser.open(report)
    browser.js("document.querySelector('#list button').focus()")
    for kind in ("keyDown", "keyUp"):
        browser("Input.dispatchKeyEvent", type=kind, key="ArrowDown", code="ArrowDown", windowsVirtualKeyCode=40)
    assert browser.js("document.querySelector('#group h3').textContent") == "sum-0001"
    assert browser.js("document.activeElement.getAttribute('aria-current')") == "true"


def test_a_thousand_groups_stay_fluid(browser, tmp_path):
    groups, _, values = synthetic(1000, 8)
    table = compare(groups, values, soft=[], draws=500, permutations=1)
    path = write_report(tmp_path / "big.html", table, groups=groups, values=values)
    assert path.stat().st_size < 10e6
    browser.open(path)
    assert browser.js("document.querySelectorAll('#browser *').length") < 1000
    took = browser.js("(() => { const t = performance.now(); document.getElementById('search').value = 'carry the 7';"
                      "window.search(); return performance.now() - t; })()")  # fmt: skip
    assert took < 1000, f"a search over 8,000 completions took {took:.0f} ms"
    assert browser.problems() == []
