import math

import pytest

from trimtab.errors import InputError
from trimtab.evaluation.paired import versus
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Reward


def run(values: dict[str, list[float]], model: str = "m", text: str = "") -> list[Group]:
    return [
        Group(
            prompt(text or i, id=i),
            tuple(Completion("one two", model, 0, k, logprobs=(-1.0, -1.0)) for k in range(len(v))),
            tuple(Reward(x) for x in v),
        )
        for i, v in values.items()
    ]


def test_means_of_prompts_are_paired_by_id_whatever_the_order_and_n():
    base = run({f"p{i}": [0.0, 1.0] for i in range(8)}, "base@1")
    better = run({f"p{i}": [1.0] for i in reversed(range(8))}, "dpo@2")
    found = versus({"base": base, "dpo": better})
    first, second = found.rows
    assert (first.reward.mean, first.difference, first.verdict, first.more["models"]) == (0.5, None, "", "base@1")
    assert second.difference is not None and second.difference.mean == 0.5 and second.verdict == "better"
    assert versus({"dpo": better, "base": base})["base"].verdict == "worse"
    assert versus({"a": base, "b": base})["b"].verdict == "no difference shown"
    assert (second.n, second.tokens, found.notes) == (8, 2.0, ("8 prompts, answered by all",))
    assert "minus base" in str(found) and "+0.500" in str(found) and found.plain()["rows"][1]["verdict"] == "better"


def test_prompts_that_one_side_lacks_are_left_out_of_all_and_counted():
    found = versus({"a": run({"p": [1.0], "q": [0.0], "r": [0.0]}), "b": run({"q": [1.0], "p": [0.0], "s": [1.0]})})
    assert [r.reward.mean for r in found.rows] == [0.5, 0.5] and found.rows[1].n == 2
    assert found.notes[:2] == ("1 prompts of a are not in all: left out", "1 prompts of b are not in all: left out")


def test_unscored_is_not_zero():
    found = versus({"a": run({"p": [1.0, math.nan], "q": [math.nan]}), "b": run({"p": [1.0, 1.0], "q": [0.0]})})
    assert [r.unscored for r in found.rows] == [1.5, 0]
    assert found.rows[0].reward.mean == 1.0
    assert found.rows[1].difference is not None and found.rows[1].difference.mean == 0.0


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({"a": run({"p": [1.0]})}, "two or more"),
        ({"a": run({"p": [1.0]}), "b": run({"q": [1.0]})}, "no prompt in common"),
        ({"a": run({"p": [1.0]}), "b": run({"p": [1.0]}, text="another")}, "another text in b"),
        ({"a": run({"p": [1.0]}), "b": run({"p": [math.nan]})}, "b: not one completion .* has a reward"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs, message):
    with pytest.raises(InputError, match=message):
        versus(runs)
