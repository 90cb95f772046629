"""The nouns: what is refused, and that ids and seeds depend on exactly what they should."""

import math
import subprocess
import sys
from dataclasses import dataclass, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab import data
from trimtab.testing import prompt
from trimtab.types import (
    FREE,
    NO_USAGE,
    Completion,
    Group,
    Price,
    Prompt,
    Reward,
    Usage,
    canonical_json,
    completion_seed,
    describe,
    fingerprint,
)

COUNTS = st.none() | st.integers(0, 10**6).map(float)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
NAMES = [f.name for f in fields(Usage)]


def lint(x):
    return x


def test_group_refuses_misaligned_rewards():
    c = Completion("a", "m", 0, 0)
    with pytest.raises(ValueError, match="2 completions but 1 rewards"):
        Group(prompt("p"), (c, c), (Reward(1.0),))
    assert np.isnan(Group(prompt("p"), (c, c)).reward_N).all()


def test_columns_of_a_bare_target_and_of_a_dict():
    assert prompt("p", "42").columns == {"target": "42"}
    assert prompt("p", {"answer": "42", "level": 1}).columns == {"answer": "42", "level": 1}


def test_canonical_json_sorts_and_names_functions():
    assert canonical_json({"b": 1, "a": np.float32(0.5)}) == '{"a":0.5,"b":1}'
    assert describe(lint).endswith(":lint")
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})


def test_completion_seeds_differ_by_prompt_and_index_only():
    seeds = {completion_seed(s, p, i) for s in range(5) for p in "abcd" for i in range(50)}
    assert len(seeds) == 5 * 4 * 50 and max(seeds) < 2**31
    assert completion_seed(1, "a", 2) == completion_seed(1, "a", 2)


def test_import_is_light():
    code = (
        "import sys, time; t = time.perf_counter(); import trimtab; s = time.perf_counter() - t;"
        "heavy = {'torch', 'transformers', 'openvino', 'pyarrow', 'plotly', 'rich', 'typer'} & set(sys.modules);"
        "print(min(s, 9), heavy); assert not heavy"
    )
    seconds = min(
        float(
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()[0]
        )
        for _ in range(3)
    )
    assert seconds < 0.150


def test_every_public_name_exists():
    import trimtab

    for name in trimtab.__all__:
        assert getattr(trimtab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = trimtab.nonsense


def test_a_dataclass_that_holds_a_function_is_described_without_its_address():
    @dataclass(frozen=True)
    class Holds:
        f: object

    assert describe(Holds(describe)).endswith("Holds(f=describe)")


@given(USAGES, USAGES, USAGES)
def test_usage_adds_and_unknown_with_anything_is_unknown(a, b, c):
    for name in NAMES:
        x, y, total = (getattr(u, name) for u in (a, b, a + b))
        assert total is None if None in (x, y) else total == x + y
    assert a + b == b + a and (a + b) + c == a + (b + c) and a + NO_USAGE == a == sum([a], NO_USAGE)


def test_a_price_by_hand():
    usage = Usage(1000.0, 400.0, 50.0, 2.0, 0.5)
    assert Price(0.01, 3.0, 0.3, 15.0, 0.002)(usage) == pytest.approx(
        2 * 0.01 + (600 * 3.0 + 400 * 0.3 + 50 * 15.0) / 1e6 + 0.5 * 0.002
    )
    assert Price(million_in=3.0)(usage) == pytest.approx(0.003)  # cached tokens cost as the others
    assert Price(million_in=3.0, million_cached=0.0)(usage) == pytest.approx(0.0018)
    with pytest.raises(ValueError, match="million_out"):
        Price(million_out=-1.0)
    with pytest.raises(ValueError, match="call"):
        Price(call=math.nan)


@given(USAGES, st.lists(st.sampled_from([0.0, 0.5]), min_size=5, max_size=5))
def test_a_price_is_unknown_exactly_where_a_count_that_costs_is(usage, rates):
    price = Price(*rates)
    call, million_in, million_cached, million_out, second = rates
    needed = (million_in, million_in != million_cached, million_out, call, second)
    unknown = [name for name, rate in zip(NAMES, needed, strict=True) if rate and getattr(usage, name) is None]
    assert price.missing(usage) == ", ".join(unknown) and math.isnan(price(usage)) == bool(unknown)
    assert FREE(usage) == 0.0


def test_a_groups_usage_is_of_those_that_answered():
    def said(usage, finish="stop", tokens=None):
        return Completion("x", "m", 0, 0, finish, tokens, usage=usage)

    half = Usage(6.0, 2.0, 5.0, 0.5, 0.25)
    group = Group(prompt("p"), (said(half), said(half), said(Usage(), "error")))
    assert group.usage == Usage(12.0, 4.0, 10.0, 1.0) and group.usage.seconds == 0.5
    counted = Group(prompt("p"), (said(half), said(None, tokens=(1, 2, 3))))
    assert counted.usage == Usage(completion_tokens=8.0) and counted.completions[1].length == 3
    assert Group(prompt("p"), (said(half, "error"),)).usage == Usage()
    assert said(half).length is None and said(Usage(calls=1.0, completion_tokens=7.0)).length == 7


def test_a_prompt_of_text_is_the_same_row_of_a_file():
    (row,) = data.from_rows([{"prompt": "2 + 3?", "answer": "5"}])
    ours = Prompt.of("2 + 3?", answer="5")
    assert (ours.id, ours.messages, ours.columns) == (row.id, row.messages, row.columns)
    assert Prompt.of("2 + 3?", id="sum").id == "sum" and Prompt.of("2 + 3?").columns == {}
