r"""Answer files of AlpacaEval, Arena-Hard and MT-Bench to GROUPS of one completion a prompt (a turn is a prompt).

    [{"instruction": ..., "output": ..., "generator": "m", "dataset": "koala"}, ...]               AlpacaEval, .json
    {"question_id": 81, "category": "writing", "turns": ["...", "..."], "reference": ["...", "..."]}   questions, .jsonl
    {"question_id": 81, "model_id": "m", "choices": [{"index": 0, "turns": ["...", "..."]}]}            answers, .jsonl
    {"uid": "a1", "model": "m", "messages": [..., {"role": "assistant", "content": {"answer": "..."}}]}   Arena-Hard v2

`question_id` or `uid`, turns as texts or as {"content": ...}. The second turn's prompt holds the first turn's answer.
FLASK rows are AlpacaEval's with a list `skills`. It judges nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.data.rows import read_rows
from trimtab.errors import InputError
from trimtab.types import Completion, Group, Prompt, fingerprint


def load_answers(answers: str | Path, questions: str | Path = "") -> list[Group]:
    """One group a prompt (a turn of a question), its completion carrying the model's name.

    Prompt ids: a hash of the instruction (AlpacaEval), "<question_id>:<turn>" with `questions`. Columns of the target:
    dataset or category, reference, skills, where given. InputError names file, row and field.
    """
    rows = list(read_rows(answers))
    if not questions:
        return [_alpaca(where, row) for where, row in rows]
    known = {_id(where, row): row for where, row in read_rows(questions)}
    out: list[Group] = []
    for where, row in rows:
        name = _id(where, row)
        if name not in known:
            raise InputError(f"{where}: question {name!r} is not in {questions}")
        out += _turns(where, name, known[name], row)
    return out


def against(ours: Sequence[Group], theirs: Sequence[Group]) -> list[Group]:
    """Groups of two, ours first, for every prompt of `ours`; InputError for one that `theirs` lacks.

    Of a conversation each side's later turns follow its own earlier answers; the judge is shown ours.
    """
    other = {g.prompt.id: g.completions[0] for g in theirs}
    missing = [g.prompt.id for g in ours if g.prompt.id not in other]
    if missing:
        raise InputError(f"the baseline has no answer to {len(missing)} of {len(ours)} prompts ({missing[0]!r}, ...)")
    return [replace(g, completions=(g.completions[0], other[g.prompt.id]), rewards=()) for g in ours]


def _alpaca(where: str, row: Mapping[str, Any]) -> Group:
    for field in ("instruction", "output"):
        if not isinstance(row.get(field), str):
            raise InputError(f"{where}: no text field {field!r}; for question and answer files give both (--questions)")
    target = {k: row[k] for k in ("dataset", "category", "reference", "skills") if row.get(k)}
    messages = ({"role": "user", "content": row["instruction"]},)
    prompt = Prompt(fingerprint(row["instruction"])[:16], messages, target, where.split(",")[0].split(":")[0])
    return Group(prompt, (Completion(row["output"], str(row.get("generator", "")), 0, 0),))


def _turns(where: str, name: str, question: Mapping[str, Any], row: Mapping[str, Any]) -> list[Group]:
    asked = question.get("turns") or ([question["prompt"]] if "prompt" in question else None)
    if not asked:
        raise InputError(f"{where}: question {name!r} has neither 'turns' nor 'prompt'")
    said, model = _answers(where, row), str(row.get("model_id") or row.get("model") or "")
    if len(said) != len(asked):
        raise InputError(f"{where}: {len(said)} answers to the {len(asked)} turns of question {name!r}")
    references = question.get("reference") or []
    messages: list[dict[str, str]] = []
    out = []
    for turn, (q, a) in enumerate(zip(asked, said, strict=True)):
        messages.append({"role": "user", "content": q["content"] if isinstance(q, Mapping) else q})
        target = {k: question[k] for k in ("category", "cluster", "subcategory") if question.get(k)}
        if turn < len(references) and references[turn]:
            target["reference"] = references[turn]
        prompt = Prompt(f"{name}:{turn + 1}", tuple(messages), target, str(question.get("category", "")))
        out.append(Group(prompt, (Completion(a, model, 0, 0),)))
        messages.append({"role": "assistant", "content": a})
    return out


def _answers(where: str, row: Mapping[str, Any]) -> list[str]:
    if "choices" in row:
        turns: Any = row["choices"][0]["turns"] if row["choices"] else []
    elif "messages" in row:
        turns = [m["content"] for m in row["messages"] if m.get("role") == "assistant"]
    else:
        raise InputError(f"{where}: an answer row has 'choices' or 'messages', this has {', '.join(row) or 'nothing'}")
    texts = [t.get("content", t.get("answer")) if isinstance(t, Mapping) else t for t in turns]
    if not all(isinstance(t, str) for t in texts):
        raise InputError(f"{where}: a turn's answer must be a text, or an object with 'content' or 'answer'")
    return texts


def _id(where: str, row: Mapping[str, Any]) -> str:
    found = row.get("question_id", row.get("uid"))
    if found is None:
        raise InputError(f"{where}: no field 'question_id' or 'uid'")
    return str(found)
