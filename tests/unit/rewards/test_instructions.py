"""IFEval's checks by the maintained package: by hand, and GPT-4's answers get the accuracy that the paper prints."""

import gzip
import json
import math
import os
import pickle
from pathlib import Path

import pytest

from trimtab import data
from trimtab.errors import InputError
from trimtab.rewards import Instructions
from trimtab.rewards.instructions import loosened
from trimtab.types import Completion, Group, Prompt

ROOT = Path(os.environ.get("TRIMTAB_DATA") or Path(__file__).parents[4] / "shared" / "data")
COMMA, WORDS = "punctuation:no_comma", "length_constraints:number_words"
TARGET = {
    "instruction_id_list": [COMMA, WORDS],
    "kwargs": [{}, {"relation": "at least", "num_words": 3}],
    "prompt": "?",
}


@pytest.fixture(autouse=True)
def package():
    pytest.importorskip("lm_eval.tasks.ifeval.instructions_registry", exc_type=ImportError)


def rewards(reward, *texts: str, target=TARGET):
    group = Group(Prompt("p", (), target), tuple(Completion(t, "m", 0, i) for i, t in enumerate(texts)))
    return reward([group])[0]


def test_all_instructions_or_the_share_of_them():
    texts = ("one two three", "one, two three", "one two", "a, b", "")
    assert [r.value for r in rewards(Instructions(), *texts)] == [1, 0, 0, 0, 0]
    assert [r.value for r in rewards(Instructions(partial=True), *texts)] == [1, 0.5, 0.5, 0, 0]
    assert rewards(Instructions(), "a, b c")[0].note == f"not followed: {COMMA}"
    assert pickle.loads(pickle.dumps(Instructions()))([]) == []


def test_loose_forgives_a_first_line():
    assert rewards(Instructions("loose"), "Sure, here:\none two three")[0].value == 1
    assert len(loosened("a\nb\nc")) == 8 and "b" in loosened("a\n*b*\nc")


def test_what_cannot_be_checked_is_unscored():
    assert (
        "unknown instruction"
        in rewards(Instructions(), "x", target=TARGET | {"instruction_id_list": ["a", "b"]})[0].note
    )
    (lists,) = rewards(Instructions(), "x", target={"instruction_id_list": [COMMA], "kwargs": []})
    assert math.isnan(lists.value) and "two lists" in lists.note
    with pytest.raises(InputError, match="mode of instructions"):
        Instructions("lenient")


def test_gpt4s_answers_have_the_published_accuracy():
    """76.9 % of the prompts strictly (arXiv 2311.07911, table 3), here of those whose checks could run."""
    file = ROOT / "ifeval" / "input_response_data_gpt4.jsonl.gz"
    if not file.exists():
        pytest.skip("IFEval is not here; TRIMTAB_DATA names the folder that holds ifeval/")
    with gzip.open(file, "rt") as f:
        answers = [json.loads(line)["response"] for line in f]  # in the order of the prompts
    prompts = data.load("ifeval", path=str(file.with_name("input_data.jsonl.gz")))
    groups = [Group(p, (Completion(a, "gpt-4", 0, 0),)) for p, a in zip(prompts, answers, strict=True)]
    values = [row[0].value for row in Instructions()(groups)]
    scored = [v for v in values if not math.isnan(v)]
    assert len(scored) > 470  # 64 prompts count sentences, which needs data of nltk
    assert sum(scored) / len(values) < 0.769 < (sum(scored) + len(values) - len(scored)) / len(values)
    assert abs(sum(scored) / len(scored) - 0.769) < 0.04
