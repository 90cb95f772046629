r"""TRL's preference, unpaired and prompt-completion data sets to PAIRS and GROUPS, standard or conversational.

    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}                                  preference
    {"prompt": [{"role": "user", "content": "2 + 3?"}], "chosen": [{"role": "assistant", "content": "5"}],
     "rejected": [{"role": "assistant", "content": "6"}], "chosen_score": 1.0, "rejected_score": 0.0}    conversational
    {"chosen": [..., {"role": "assistant", ...}], "rejected": [...]}                                     implicit prompt
    {"prompt": "The sky is", "completion": " blue.", "label": true}                                      unpaired
    {"prompt": "The sky is", "completion": " blue."}                                              prompt-completion

From JSON lines (also .gz), Parquet, or a data set of the hub by its name (`org/name` or `org/name:split`, needs
`datasets`). Complaints name file, line and field. It does not judge the pairs (`trimtab.data.lint` does).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.data.sources import _lines, _messages, _parse
from trimtab.errors import InputError
from trimtab.types import Completion, Group, Pair, Prompt, Reward, fingerprint

Located = Iterable[tuple[str, Mapping[str, Any]]]


def load_pairs(spec: str | Path, *, chat: bool = False) -> list[Pair]:
    """Preference pairs from a file or hub data set. The margin is the column `margin`, or the difference of
    `chosen_score` and `rejected_score`, else 0 (unknown). With `chat`, prompts that are text become user messages."""
    return [_pair(where, row, chat) for where, row in read_rows(spec)]


def pairs_from_rows(rows: Iterable[Mapping[str, Any]], *, chat: bool = False, source: str = "rows") -> list[Pair]:
    """The rules of `load_pairs` on mappings, such as a `datasets.Dataset` yields."""
    return [_pair(where, row, chat) for where, row in _numbered(rows, source)]


def load_labelled(spec: str | Path, *, chat: bool = False) -> list[Group]:
    """Unpaired preferences: the completions of one prompt as one group, reward 1 where `label` is true, else 0."""
    singles = []
    for where, row in read_rows(spec):
        if not isinstance(row.get("label"), bool):
            raise InputError(f"{where}: field 'label' must be true or false, it is {row.get('label')!r}")
        singles.append((*_single(where, row, chat), Reward(float(row["label"]))))
    return _grouped(singles)


def load_demonstrations(spec: str | Path, *, chat: bool = False) -> list[Group]:
    """Prompt-completion data for SFT: the completions of one prompt as one group, without rewards."""
    return _grouped([(*_single(where, row, chat), None) for where, row in read_rows(spec)])


def read_rows(spec: str | Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, row) of every row of a .jsonl, .jsonl.gz or .parquet file, or of a hub data set `org/name[:split]`."""
    file, name = Path(spec), str(spec)
    if name.endswith((".jsonl", ".jsonl.gz", ".json.gz")):
        rows = ((f"{file}:{n}", _parse(f"{file}:{n}", line)) for n, line in enumerate(_lines(file), 1))
    elif name.endswith(".parquet"):
        import pyarrow.parquet

        if not file.is_file():
            raise InputError(f"{file}: no such file")
        rows = _numbered(pyarrow.parquet.read_table(file).to_pylist(), str(file))
    elif name.count("/") == 1 and not file.exists():
        try:
            from datasets import load_dataset
        except ImportError as e:
            raise InputError(f"{name} names a hub data set, which needs: pip install datasets") from e
        repo, _, split = name.partition(":")
        rows = _numbered((dict(r) for r in load_dataset(repo, split=split or "train")), name)
    else:
        raise InputError(f"{name!r} is no .jsonl or .parquet file and no hub data set (org/name)")
    empty = True
    for where, row in rows:
        empty = False
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: expected an object with named fields, got {str(row)[:60]!r}")
        yield where, row
    if empty:
        raise InputError(f"{spec}: no rows")


def _numbered(rows: Iterable[Mapping[str, Any]], source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((f"{source}, row {n}", row) for n, row in enumerate(rows, 1))


def _pair(where: str, row: Mapping[str, Any], chat: bool) -> Pair:
    for field in ("chosen", "rejected"):
        if field not in row:
            raise InputError(f"{where}: no field {field!r}; a preference row has prompt, chosen and rejected")
    if "prompt" in row:
        prompt, texts = row["prompt"], [_text(where, row, f) for f in ("chosen", "rejected")]
    else:
        prompt, texts = _implicit(where, row)
    chosen, rejected = (Completion(t, "", i, i) for i, t in enumerate(texts))
    margin = row.get("margin")
    if margin is None:
        scores = [row.get("chosen_score"), row.get("rejected_score")]
        margin = 0.0 if None in scores else float(scores[0]) - float(scores[1])  # pyright: ignore[reportArgumentType]
    return Pair(_prompt(where, row, prompt, chat), chosen, rejected, float(margin))


def _implicit(where: str, row: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The common beginning of two full conversations as the prompt."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise InputError(f"{where}: no field 'prompt' (only conversations may leave it to be found as their beginning)")
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and dict(chosen[same]) == dict(rejected[same]):
        same += 1
    tails = {"chosen": chosen[same:], "rejected": rejected[same:]}
    return chosen[:same], [_text(where, tails, f) for f in tails]


def _single(where: str, row: Mapping[str, Any], chat: bool) -> tuple[Prompt, str]:
    if "prompt" not in row or "completion" not in row:
        raise InputError(f"{where}: needs the fields 'prompt' and 'completion', it has {', '.join(row) or 'none'}")
    return _prompt(where, row, row["prompt"], chat), _text(where, row, "completion")


def _text(where: str, row: Mapping[str, Any], field: str) -> str:
    value = row[field]
    if isinstance(value, str):
        return value
    message = value[0] if isinstance(value, Sequence) and len(value) == 1 else None
    if isinstance(message, Mapping) and message.get("role") == "assistant" and isinstance(message.get("content"), str):
        return message["content"]
    raise InputError(f"{where}: field {field!r} must be text or one assistant message, it is {str(value)[:80]!r}")


def _prompt(where: str, row: Mapping[str, Any], prompt: Any, chat: bool) -> Prompt:
    messages = _messages(f"{where}: 'prompt'", prompt, chat or not isinstance(prompt, str))
    name = row.get("prompt_id") or fingerprint(list(messages))
    return Prompt(str(name), messages, None, where.split(",")[0].split(":")[0])


def _grouped(singles: Sequence[tuple[Prompt, str, Reward | None]]) -> list[Group]:
    found: dict[str, list[tuple[Prompt, str, Reward | None]]] = {}
    for single in singles:
        found.setdefault(fingerprint([dict(m) for m in single[0].messages]), []).append(single)
    groups = []
    for rows in found.values():
        completions = tuple(Completion(text, "", i, i) for i, (_, text, _) in enumerate(rows))
        groups.append(Group(rows[0][0], completions, tuple(r for _, _, r in rows if r is not None)))
    return groups
