"""What data sets call a dialogue, a preference or a score is read as meant, or refused with its line."""

import json

import pytest

from trimtab import data
from trimtab.data.pairs import to_trl
from trimtab.data.preference import load_demonstrations, load_labelled, load_pairs, pairs_from_rows
from trimtab.errors import InputError
from trimtab.store import Store
from trimtab.testing import write_jsonl
from trimtab.types import Prompt


def user(text):
    return {"role": "user", "content": text}


def bot(text, **more):
    return {"role": "assistant", "content": text, **more}


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


SYSTEM = {"role": "system", "content": "Be kind."}
ASK, YES, NO = user("Is 7 prime?"), bot("Yes."), bot("No.")
CALL = {"type": "function", "function": {"name": "is_prime", "arguments": {"n": 7}}}
TOOL = {"type": "function", "function": {"name": "is_prime", "parameters": {"type": "object", "properties": {}}}}
CALLED = [
    ASK,
    bot(None, tool_calls=[CALL]),
    {"role": "tool", "content": "true", "tool_call_id": "c1", "name": "is_prime"},
]
PLAIN = {"prompt": [ASK], "chosen": [YES], "rejected": [NO]}


READ = {  # shape: row, messages of the prompt, chosen text
    "text prompt, message answers": ({**PLAIN, "prompt": "Is 7 prime?"}, [ASK], "Yes."),
    "message prompt, text answers": ({**PLAIN, "chosen": "Yes.", "rejected": "No."}, [ASK], "Yes."),
    "one answer text, one a message": ({**PLAIN, "rejected": "No."}, [ASK], "Yes."),
    "text prompt, dialogues (ultrafeedback_binarized)": (
        {
            "prompt": "Is 7 prime?",
            "prompt_id": "u1",
            "chosen": [ASK, YES],
            "rejected": [ASK, NO],
            "messages": [ASK, YES],
            "score_chosen": 8.5,
            "score_rejected": 7.0,
        },
        [ASK],
        "Yes.",
    ),
    "text prompt, dialogues with a system message": (
        {"prompt": "Is 7 prime? ", "chosen": [SYSTEM, ASK, YES], "rejected": [SYSTEM, ASK, NO]},
        [SYSTEM, ASK],
        "Yes.",
    ),
    "text prompt, longer dialogues": (
        {
            "prompt": "Is 7 prime?",
            "chosen": [ASK, YES, user("And 9?"), NO],
            "rejected": [ASK, YES, user("And 9?"), YES],
        },
        [ASK, YES, user("And 9?")],
        "No.",
    ),
    "message prompt, dialogues": ({"prompt": [ASK], "chosen": [ASK, YES], "rejected": [ASK, NO]}, [ASK], "Yes."),
    "message prompt with system, dialogues without": (
        {"prompt": [SYSTEM, ASK], "chosen": [ASK, YES], "rejected": [ASK, NO]},
        [SYSTEM, ASK],
        "Yes.",
    ),
    "implicit prompt of several turns": (
        {"chosen": [SYSTEM, ASK, YES, user("And 9?"), NO], "rejected": [SYSTEM, ASK, YES, user("And 9?"), YES]},
        [SYSTEM, ASK, YES, user("And 9?")],
        "No.",
    ),
    "identical answers": ({"chosen": [ASK, YES], "rejected": [ASK, YES]}, [ASK], "Yes."),
    "one answer is the beginning of the other": ({**PLAIN, "rejected": [bot("Yes. It is.")]}, [ASK], "Yes."),
    "ShareGPT": (
        {
            "prompt": [{"from": "system", "value": "Be kind."}, human("Is 7 prime?")],
            "chosen": [gpt("Yes.")],
            "rejected": [gpt("No.")],
        },
        [SYSTEM, ASK],
        "Yes.",
    ),
    "ShareGPT with a function call": (
        {
            "prompt": [
                human("Is 7 prime?"),
                {"from": "function_call", "value": json.dumps(CALL["function"])},
                {"from": "observation", "value": "true"},
            ],
            "chosen": [gpt("Yes.")],
            "rejected": [gpt("No.")],
        },
        [ASK, bot("", tool_calls=[CALL]), {"role": "tool", "content": "true"}],
        "Yes.",
    ),
    "content parts": (
        {
            **PLAIN,
            "prompt": [
                {"role": "user", "content": [{"type": "text", "text": "Is 7"}, {"type": "text", "text": "prime?"}]}
            ],
        },
        [user("Is 7\nprime?")],
        "Yes.",
    ),
    "answers in parts": ({**PLAIN, "chosen": [bot([{"type": "text", "text": "Yes."}])]}, [ASK], "Yes."),
    "messages as JSON text": ({k: json.dumps(v) for k, v in PLAIN.items()}, [ASK], "Yes."),
    "calls in the history": ({**PLAIN, "prompt": CALLED}, CALLED, "Yes."),
    "keys that are null": (
        {**PLAIN, "prompt": [{**ASK, "name": None, "tool_calls": None}], "tools": None, "system": "", "images": []},
        [ASK],
        "Yes.",
    ),
    "keys of a message": (
        {**PLAIN, "prompt": [{**ASK, "name": "Ann", "weight": 0}]},
        [{**ASK, "name": "Ann", "weight": 0}],
        "Yes.",
    ),
    "system column": ({**PLAIN, "system": "Be kind."}, [SYSTEM, ASK], "Yes."),
    "system_prompt column, said twice": (
        {**PLAIN, "prompt": [SYSTEM, ASK], "system_prompt": "Be kind."},
        [SYSTEM, ASK],
        "Yes.",
    ),
    "system column of a text prompt": (
        {"system": "Be kind.", "prompt": "Is 7 prime?", "chosen": [YES], "rejected": [NO]},
        [SYSTEM, ASK],
        "Yes.",
    ),
    "tools": ({**PLAIN, "tools": [TOOL]}, [{**ASK, "tools": [TOOL]}], "Yes."),
    "tools as JSON text": ({**PLAIN, "tools": json.dumps([TOOL])}, [{**ASK, "tools": [TOOL]}], "Yes."),
    "tools, each as JSON text": ({**PLAIN, "tools": [json.dumps(TOOL)]}, [{**ASK, "tools": [TOOL]}], "Yes."),
    "tools beside a system column": (
        {**PLAIN, "tools": [TOOL], "system": "Be kind."},
        [{**SYSTEM, "tools": [TOOL]}, ASK],
        "Yes.",
    ),
    "no tools": ({**PLAIN, "tools": "[]"}, [ASK], "Yes."),
}


@pytest.mark.parametrize("shape", READ)
def test_shapes_that_are_read(tmp_path, shape):
    row, messages, chosen = READ[shape]
    (pair,) = load_pairs(write_jsonl(tmp_path / "p.jsonl", [row]))
    assert list(pair.prompt.messages) == messages and pair.chosen.text == chosen
    (again,) = pairs_from_rows(to_trl([pair]))  # what is written for TRL comes back the same
    assert list(again.prompt.messages) == messages and again.chosen.text == chosen


REFUSED = {
    "answers as objects": (
        {"conversations": [human("Q?")], "chosen": gpt("a"), "rejected": gpt("b")},
        "put the object into a list",
    ),
    "no prompt, but conversations": (
        {"conversations": [human("Q?")], "chosen": [gpt("a")], "rejected": [gpt("b")]},
        "rename the column 'conversations' to 'prompt'",
    ),
    "Human: and Assistant: texts": (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yo", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
        "no field 'prompt'",
    ),
    "dialogues of other prompts": (
        {"prompt": "Is 9 prime?", "chosen": [ASK, YES], "rejected": [ASK, NO]},
        "does not begin with the prompt",
    ),
    "dialogues that part early": (
        {"prompt": "Is 7 prime?", "chosen": [ASK, YES, user("a"), NO], "rejected": [ASK, NO, user("a"), NO]},
        "part ways",
    ),
    "implicit, one longer": (
        {"chosen": [ASK, YES], "rejected": [ASK, YES, user("Sure?"), NO]},
        "the same dialogue up to their last",
    ),
    "implicit, other questions": (
        {"chosen": [ASK, YES], "rejected": [user("Is 9 prime?"), NO]},
        "the same dialogue up to their last",
    ),
    "answers of two messages": (
        {"prompt": [ASK], "chosen": [bot("Well,"), bot("yes.")], "rejected": [NO]},
        "does not begin with the prompt",
    ),
    "an answer by the user": ({**PLAIN, "rejected": [user("No.")]}, "one assistant message"),
    "several rejected texts": ({**PLAIN, "rejected": ["No.", "Maybe."]}, "message 0: expected"),
    "null answer": ({**PLAIN, "chosen": None}, "field 'chosen' must be text or one assistant message, it is NoneType"),
    "empty list": ({**PLAIN, "chosen": []}, "field 'chosen' must be text"),
    "an answer of null": ({**PLAIN, "chosen": [bot(None)]}, "message 0: expected"),
    "an answer that calls": (
        {**PLAIN, "chosen": [bot("", tool_calls=[CALL])]},
        "'tool_calls', which a completion's text cannot hold",
    ),
    "an answer that calls and says nothing": ({**PLAIN, "chosen": [bot(None, tool_calls=[CALL])]}, "'tool_calls'"),
    "an answer with thoughts beside it": (
        {**PLAIN, "chosen": [bot("Yes.", reasoning_content="7 is odd.")]},
        "'reasoning_content'",
    ),
    "an answer that is not to be trained": ({**PLAIN, "rejected": [bot("No.", train=False)]}, "not to be trained on"),
    "an answer of weight 0": ({**PLAIN, "rejected": [bot("No.", weight=0)]}, "not to be trained on"),
    "a prefilled answer": ({**PLAIN, "prompt": [ASK, bot("Well,")]}, "ends with the assistant's own turn"),
    "an image in the content": (
        {**PLAIN, "prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "content part 'image_url' is not text",
    ),
    "an images column": ({**PLAIN, "images": ["a.png"]}, "column 'images' is meant for the model"),
    "settings for the template": (
        {**PLAIN, "chat_template_kwargs": {"enable_thinking": False}},
        "'chat_template_kwargs'",
    ),
    "an unknown role": ({**PLAIN, "prompt": [{"role": "human", "content": "a"}]}, "unknown role 'human'"),
    "an unknown speaker": ({**PLAIN, "prompt": [{"from": "narrator", "value": "a"}]}, "unknown speaker 'narrator'"),
    "a call that is no JSON": (
        {**PLAIN, "prompt": [{"from": "function_call", "value": "is_prime(7)"}]},
        "JSON with 'name'",
    ),
    "tools that are no JSON": ({**PLAIN, "tools": "is_prime(n)"}, "column 'tools' is text, but not JSON"),
    "tools that are no objects": ({**PLAIN, "tools": [3]}, "list of objects that describe tools"),
    "two system prompts": ({**PLAIN, "prompt": [SYSTEM, ASK], "system": "Be brief."}, "two different system prompts"),
    "a system prompt for raw text": (
        {"system": "Be kind.", "prompt": "a", "chosen": "b", "rejected": "c"},
        r"use chat \(--chat\)",
    ),
    "tools for raw text": ({"tools": [TOOL], "prompt": "a", "chosen": "b", "rejected": "c"}, r"use chat \(--chat\)"),
    "messages as Python text": (
        {**PLAIN, "prompt": str([ASK])},
        "'prompt' looks like a list of messages written as text",
    ),
    "answers as Python text": ({**PLAIN, "chosen": str([YES])}, "field 'chosen' looks like a list of messages"),
    "a score in words": (
        {**PLAIN, "chosen_rating": "N/A", "rejected_rating": "2"},
        "field 'chosen_rating' must be a finite number",
    ),
    "a score that is a list": ({**PLAIN, "score_chosen": [1], "score_rejected": 2}, "field 'score_chosen' must be"),
    "a margin beyond numbers": ({**PLAIN, "margin": 10**400}, "field 'margin' must be a finite number"),
    "a margin that is true": ({**PLAIN, "margin": True}, "field 'margin' must be a finite number"),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_shapes_that_are_refused_with_their_line(tmp_path, shape):
    row, says = REFUSED[shape]
    file = write_jsonl(tmp_path / "p.jsonl", [PLAIN, row])
    with pytest.raises(InputError, match=says) as e:
        load_pairs(file)
    assert str(e.value).startswith(f"{file}:2: ")


@pytest.mark.parametrize(
    ("columns", "margin"),
    [
        ({"chosen_score": 3, "rejected_score": 1.5}, 1.5),
        ({"score_chosen": "3.5", "score_rejected": "1"}, 2.5),
        ({"chosen-rating": 5.0, "rejected-rating": 2.0}, 3.0),
        ({"reward_chosen": -1.0, "reward_rejected": -3.0}, 2.0),
        ({"margin": 0.5, "chosen_score": 9, "rejected_score": 1}, 0.5),
        ({"chosen_score": None, "rejected_score": 2.0}, 0.0),
        ({"chosen_score": None, "rejected_score": None, "chosen_rating": 4, "rejected_rating": 3}, 1.0),
        ({"margin": None}, 0.0),
    ],
)
def test_scores_by_any_of_their_names_make_the_margin(columns, margin):
    (pair,) = pairs_from_rows([{**PLAIN, **columns}])
    assert pair.margin == margin
    kept = {k: v for k, v in columns.items() if v is not None and k != "margin"}
    assert (pair.prompt.target or {}) == kept


def test_every_other_column_and_key_is_kept_in_the_target():
    row = {**PLAIN, "source": "flan", "tags": ["a"], "none": None, "chosen": [bot("Yes.", model="m1", weight=1)]}
    (pair,) = pairs_from_rows([row])
    assert pair.prompt.target == {"source": "flan", "tags": ["a"], "chosen": {"model": "m1", "weight": 1}}


def test_completions_of_one_prompt_keep_what_they_share(tmp_path):
    rows = [{"prompt": "a", "completion": c, "label": str(c == "x"), "topic": "t", "n": n} for n, c in enumerate("xyz")]
    file = write_jsonl(tmp_path / "k.jsonl", rows)
    with pytest.warns(UserWarning, match="n left out for prompts whose completions differ in it"):
        (group,) = load_labelled(file)
    assert group.prompt.target == {"topic": "t"} and group.reward_N.tolist() == [1, 0, 0]
    (tmp_path / "k.csv").write_text("prompt,completion\na,x\n")
    (shown,) = load_demonstrations(tmp_path / "k.csv")
    assert shown.prompt.target is None and shown.prompt.messages == ({"role": "text", "content": "a"},)


def test_prompts_take_the_same_columns():
    rows = [
        {"prompt": "2 + 3?", "system": "Be kind.", "tools": [TOOL], "answer": "5"},
        {"prompt": [human("2 + 4?")], "system": None, "answer": "6"},
        {"prompt": CALLED, "answer": "true"},
    ]
    one, two, three = data.from_rows(rows)
    assert list(one.messages) == [{**SYSTEM, "tools": [TOOL]}, user("2 + 3?")] and one.target == {"answer": "5"}
    assert list(two.messages) == [user("2 + 4?")] and list(three.messages) == CALLED
    for bad, says in (({"image": "a.png"}, "rows: row 1: column 'image'"), ({"prompt": [ASK, YES]}, "own turn")):
        with pytest.raises(InputError, match=says):
            data.from_rows([{"prompt": "a", **bad}])


def test_prompts_from_a_spreadsheet_and_through_the_store(tmp_path):
    (tmp_path / "q.csv").write_text("\ufeffid;prompt;answer\n1;2 + 3?;5\n2;2 + 4?;6\n", encoding="utf-8")
    prompts = data.load(str(tmp_path / "q.csv"))
    assert [(p.id, p.messages[0]["content"], p.target) for p in prompts] == [
        ("1", "2 + 3?", {"answer": "5"}), ("2", "2 + 4?", {"answer": "6"})
    ]  # fmt: skip
    called = Prompt("c", tuple(CALLED))
    Store(tmp_path / "run").add_prompts([called], split="train")
    assert Store(tmp_path / "run").prompts() == [called]
