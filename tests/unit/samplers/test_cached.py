"""The store as a sampler's memory: only what is missing is sampled, nothing is lost or doubled by kill -9."""

import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from trimtab.errors import EngineError, InputError, SettingsChanged
from trimtab.rewards import lift, score
from trimtab.samplers import Cached, OpenAI
from trimtab.store import Store
from trimtab.testing import FakeSampler, check_sampler, prompt, scripted_server
from trimtab.types import SamplingParams

sys.path.insert(0, str(Path(__file__).parents[2] / "e2e"))
from kill9 import python, run_until_done_with_kills

PARAMS = SamplingParams(seed=3)
PROMPTS = [prompt(f"prompt {i}") for i in range(10)]


def answer(p, rng):
    return f"{p.id} says {rng.integers(10**9)}"


class Counting:
    """A sampler that remembers what it was asked, and fails on one prompt when told to."""

    model = "fake@0"

    def __init__(self, poison=None):
        self.asked, self.poison = [], poison

    def __call__(self, prompts, n, params):
        if any(p.id == self.poison for p in prompts):
            raise EngineError("the server is down")
        self.asked += [p.id for p in prompts]
        return FakeSampler(answer)(prompts, n, params)


class Streaming(Counting):
    """The same as a sampler that gives its groups one by one, the last prompt first."""

    def stream(self, prompts, n, params):
        for place in reversed(range(len(prompts))):
            (group,) = self(prompts[place : place + 1], n, params)
            yield place, group


def test_a_streaming_sampler_resumes_after_the_groups_it_gave(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(EngineError):
        Cached(Streaming(poison="prompt 7"), store, "train")(PROMPTS, 2, PARAMS)
    sampler = Streaming()
    groups = Cached(sampler, store, "train")(PROMPTS, 2, PARAMS)
    assert sampler.asked == [f"prompt {i}" for i in reversed(range(8))]
    assert groups == FakeSampler(answer)(PROMPTS, 2, PARAMS)


def test_second_call_samples_nothing_and_gives_the_same(tmp_path):
    store, sampler = Store(tmp_path), Counting()
    first = Cached(sampler, store, "train", batch=3)(PROMPTS, 4, PARAMS)
    assert sampler.asked == [p.id for p in PROMPTS]
    again = Cached(sampler, store, "train")(PROMPTS, 4, PARAMS)
    assert first == again == Cached(None, store, "train")(PROMPTS, 4, PARAMS)
    assert len(sampler.asked) == len(PROMPTS)
    direct = FakeSampler(answer)(PROMPTS, 4, PARAMS)
    assert [[c.text for c in g.completions] for g in first] == [[c.text for c in g.completions] for g in direct]


def test_order_is_the_callers_and_new_prompts_are_added(tmp_path):
    store, sampler = Store(tmp_path), Counting()
    Cached(sampler, store, "train")(PROMPTS[:6], 2, PARAMS)
    groups = Cached(sampler, store, "train")(PROMPTS[::-1], 2, PARAMS)
    assert [g.prompt.id for g in groups] == [p.id for p in PROMPTS[::-1]]
    assert sorted(sampler.asked) == sorted(p.id for p in PROMPTS)


def test_what_was_sampled_before_an_error_is_kept(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(EngineError):
        Cached(Counting(poison="prompt 7"), store, "train", batch=2)(PROMPTS, 2, PARAMS)
    sampler = Counting()
    assert len(Cached(sampler, store, "train")(PROMPTS, 2, PARAMS)) == 10
    assert sampler.asked == [p.id for p in PROMPTS[6:]]


@pytest.mark.parametrize("n, params, shown", [(3, PARAMS, "n: 2 then, 3 now"), (2, SamplingParams(seed=4), "seed: 3")])
def test_other_settings_are_refused(tmp_path, n, params, shown):
    store = Store(tmp_path)
    Cached(Counting(), store, "train")(PROMPTS[:2], 2, PARAMS)
    with pytest.raises(SettingsChanged, match=shown):
        Cached(Counting(), store, "train")(PROMPTS, n, params)


def test_reading_alone_names_what_is_missing(tmp_path):
    store = Store(tmp_path)
    Cached(Counting(), store, "train")(PROMPTS[:8], 2, PARAMS)
    with pytest.raises(InputError, match="lacks 2 of 10 prompts .'prompt 8', 'prompt 9'"):
        Cached(None, store, "train")(PROMPTS, 2, PARAMS)


def test_doubled_and_changed_ids_are_refused(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(InputError, match="'prompt 1' is given twice"):
        Cached(Counting(), store, "train")([PROMPTS[1], PROMPTS[2], PROMPTS[1]], 2, PARAMS)
    Cached(Counting(), store, "train")(PROMPTS[:2], 2, PARAMS)
    with pytest.raises(InputError, match="prompt 1.*other messages"):
        Cached(Counting(), store, "train")([prompt("changed", id="prompt 1")], 2, PARAMS)


def test_contract(tmp_path):
    """A store holds one set of settings, so each call of the contract gets a store of its own."""

    class Fresh:
        model, calls = "fake@0", 0

        def __call__(self, prompts, n, params):
            self.calls += 1
            return Cached(FakeSampler(answer), Store(tmp_path / str(self.calls)), "t", batch=1)(prompts, n, params)

    check_sampler(Fresh())


SCRIPT = """
import sys, time
from trimtab.samplers import Cached
from trimtab.store import Store
from trimtab.testing import FakeSampler, prompt
from trimtab.types import SamplingParams

def answer(p, rng):
    time.sleep(0.002)
    return f"{p.id} says {rng.integers(10**9)}"

print("begin", flush=True)
Cached(FakeSampler(answer), Store(sys.argv[1]), "train", batch=4)(
    [prompt(f"prompt {i}") for i in range(int(sys.argv[2]))], 4, SamplingParams(seed=3)
)
"""


@pytest.mark.slow
def test_kill9_at_20_random_moments_loses_and_doubles_nothing(tmp_path):
    n = 300
    killed = run_until_done_with_kills(python(SCRIPT, tmp_path / "killed", n), np.random.default_rng(0), window_s=0.25)
    assert killed >= 15, f"only {killed} kills fell on the work; make it longer"
    subprocess.run(python(SCRIPT, tmp_path / "whole", n), check=True, capture_output=True)

    def rows(name):
        table = Store(tmp_path / name).read("completions/train").to_pylist()
        assert len({r["id"] for r in table}) == len(table) == 4 * n
        return sorted(table, key=lambda r: r["id"])

    assert rows("killed") == rows("whole")
    assert not list((tmp_path / "killed").rglob(".tmp-*"))


def chat(text):
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {"completion_tokens": 5}}


@pytest.mark.filterwarnings("ignore")
def test_what_failed_is_kept_as_a_failure_and_asked_for_again(tmp_path):
    healed = threading.Event()

    def answer(number, asked):
        if "bad" in str(asked.body) and not healed.is_set():
            return 400, {}, {"error": {"message": "content_filter"}}
        if "half" in str(asked.body) and asked.body.get("n", 1) == 3 and not healed.is_set():
            return (
                200,
                {},
                {"choices": [*chat("a")["choices"], *chat("b")["choices"], {"finish_reason": "content_filter"}]},
            )
        return 200, {}, {"choices": [chat(f"{number} {i}")["choices"][0] for i in range(asked.body.get("n", 1))]}

    prompts, store = [prompt(t) for t in ("good", "bad", "half")], Store(tmp_path)
    with scripted_server(answer) as (url, seen):
        cached = Cached(OpenAI(url, "m", retries=0), store, "train")
        good, bad, half = cached(prompts, 3, PARAMS)
        assert [c.finish for c in bad.completions] == ["error"] * 3 and "content_filter" in bad.completions[0].note
        assert [c.finish for c in half.completions] == ["stop", "stop", "error"]
        seen_before = []
        scored = score(store.groups("train"), lift(partial(_length, seen_before)), store=store, name="train",
                       reward_name="length", workers=0)  # fmt: skip
        assert [[r.value for r in g.rewards] for g in scored[:1]] == [[3.0] * 3] and "" not in seen_before
        assert np.isnan(scored[1].reward_N).all() and "content_filter" in scored[1].rewards[0].note
        assert np.isnan(scored[2].reward_N).tolist() == [False, False, True]
        assert Cached(None, store, "train")(prompts, 3, PARAMS)[1] == bad  # only reads: failures are failures
        del seen[:]
        assert cached(prompts, 3, PARAMS) == [good, bad, half] and len(seen) == 2 == len({str(s.body) for s in seen})
        healed.set()
        again = cached(prompts, 3, PARAMS)
        assert again[0] == good and [c.finish for c in again[1].completions] == ["stop"] * 3
        assert again[2].completions[:2] == half.completions[:2] and again[2].completions[2].finish == "stop"
        scored = score(store.groups("train"), lift(partial(_length, [])), store=store, name="train",
                       reward_name="length", workers=0)  # fmt: skip
        assert all(np.isfinite(g.reward_N).all() for g in scored)
        del seen[:]
        assert cached(prompts, 3, PARAMS) == again and not seen


def _length(seen, prompt, completion):
    seen.append(completion.text)
    return float(len(completion.text))


def test_a_run_of_nothing_but_failures_is_an_error(tmp_path):
    prompts = [prompt(str(i)) for i in range(3)]
    with scripted_server(lambda *_: (500, {}, "down")) as (url, _), pytest.warns(UserWarning):
        cached = Cached(OpenAI(url, "m", retries=0), Store(tmp_path), "train")
        with pytest.raises(EngineError, match="not one of 3 prompts was answered: .*status 500: down"):
            cached(prompts, 1, PARAMS)


def test_what_shapes_the_request_is_part_of_a_tables_settings(tmp_path):
    with scripted_server(lambda *_: (200, {}, chat("4"))) as (url, _):
        Cached(OpenAI(url, "m"), Store(tmp_path), "train")([prompt("a")], 1, PARAMS)
        with pytest.raises(SettingsChanged, match="fields"):
            Cached(OpenAI(url, "m", fields={"seed": False}), Store(tmp_path), "train")([prompt("b")], 1, PARAMS)


SERVED = """
import sys
from trimtab.samplers import Cached, OpenAI
from trimtab.store import Store
from trimtab.testing import prompt
from trimtab.types import SamplingParams
Cached(OpenAI(sys.argv[2], "m", concurrency=2), Store(sys.argv[1]), "train")(
    [prompt(str(i)) for i in range(14)], 1, SamplingParams()
)
"""


def test_kill9_loses_only_what_is_on_its_way_to_and_from_the_server(tmp_path):
    stuck, release = threading.Event(), threading.Event()

    def answer(number, asked):
        if number > 10 and not release.is_set():
            stuck.set()
            release.wait(30)
        return 200, {}, chat(f"{number}")

    with scripted_server(answer) as (url, seen):
        process = subprocess.Popen([sys.executable, "-c", SERVED, str(tmp_path), url])
        assert stuck.wait(60)
        time.sleep(0.4)
        process.kill()
        process.wait()
        release.set()
        store = Store(tmp_path)
        assert len(store.groups("train")) == 10  # what was answered is on disk though nothing came after it
        del seen[:]
        groups = Cached(OpenAI(url, "m"), store, "train")([prompt(str(i)) for i in range(14)], 1, SamplingParams())
        assert len(groups) == 14 and len(seen) == 4
