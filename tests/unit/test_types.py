"""The nouns: what is refused, and that ids and seeds depend on exactly what they should."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from trimtab.testing import prompt
from trimtab.types import Completion, Group, Reward, canonical_json, completion_seed, describe, fingerprint


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
