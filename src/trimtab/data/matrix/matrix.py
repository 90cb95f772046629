"""Published tables of many models' rewards, and our own GROUPS, to one response matrix: prompts x models.

The matrix is what model-level learning (Zooter, Lu et al. 2024) starts from: for every prompt and model a reward, and
where known the tokens, the price and the text. A cell that was not measured is missing (NaN), never zero. Its long form
is plain Parquet or JSON lines, one row a cell. It does not call models (samplers do) and does not score (rewards do).
"""

import gzip
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.data.cells import number
from trimtab.errors import InputError, unknown
from trimtab.publish import publish
from trimtab.types import Completion, Group, Prompt, Reward, fingerprint, user_text

Array = npt.NDArray[np.float64]
COLUMNS = ("prompt_id", "prompt", "model", "reward", "tokens", "price", "latency", "tags", "text")


@dataclass(frozen=True, eq=False)
class ResponseMatrix:
    """Rewards of M models on P prompts. `tags` are each prompt's labels (tasks, topics), possibly none.

    `reward_PM` in the reward's own unit, `tokens_PM` generated tokens, `price_PM` US dollars a call, `latency_PM`
    seconds a call; NaN = missing.
    `text_PM` holds the completions where known ("" = not known); it is empty when no text was given at all.
    InputError when shapes disagree, a name is given twice or a reward is infinite.
    """

    prompts: tuple[Prompt, ...]
    models: tuple[str, ...]
    reward_PM: Array
    tags: tuple[tuple[str, ...], ...] = ()
    tokens_PM: Array | None = None
    price_PM: Array | None = None
    latency_PM: Array | None = None
    text_PM: tuple[tuple[str, ...], ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.prompts), len(self.models))
        object.__setattr__(self, "reward_PM", np.asarray(self.reward_PM, float))
        object.__setattr__(self, "tags", self.tags or ((),) * len(self.prompts))
        for name in ("tokens_PM", "price_PM", "latency_PM"):
            value = getattr(self, name)
            object.__setattr__(self, name, np.full(shape, np.nan) if value is None else np.asarray(value, float))
        for name in ("reward_PM", "tokens_PM", "price_PM", "latency_PM"):
            if getattr(self, name).shape != shape:
                raise InputError(f"{name} has shape {getattr(self, name).shape}, the matrix is {shape}")
        if len(self.tags) != shape[0]:
            raise InputError(f"{len(self.tags)} rows of tags for {shape[0]} prompts; give one row a prompt")
        for kind, names in (("model", self.models), ("prompt id", [p.id for p in self.prompts])):
            if len(set(names)) != len(names):
                twice = next(n for n in names if list(names).count(n) > 1)
                raise InputError(f"{kind} {twice!r} occurs twice in the matrix; merge or rename its rows")
        if np.isinf(self.reward_PM).any():
            p, m = np.argwhere(np.isinf(self.reward_PM))[0]
            raise InputError(f"prompt {self.prompts[p].id}, model {self.models[m]}: the reward is infinite; clip it")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def missing(self) -> int:
        """Number of cells without a reward."""
        return int(np.isnan(self.reward_PM).sum())

    @property
    def whole_P(self) -> npt.NDArray[np.bool_]:
        """Which prompts have a reward of every model: on these alone can models be compared by their means."""
        return np.asarray(~np.isnan(self.reward_PM).any(axis=1))

    def common(self) -> "ResponseMatrix":
        """The matrix of the prompts that every model was measured on. InputError when there is none."""
        if not self.whole_P.any():
            counts = (~np.isnan(self.reward_PM)).sum(0)
            measured = ", ".join(f"{m} {n}" for m, n in zip(self.models, counts, strict=True))
            raise InputError(
                f"no prompt has a reward of all {len(self.models)} models (of {len(self)} prompts: {measured}), so "
                "they cannot be compared; take fewer models, or measure them on the same prompts"
            )
        return self if self.whole_P.all() else self.rows(self.whole_P)

    def rows(self, index: Sequence[int] | npt.NDArray[Any]) -> "ResponseMatrix":
        """The matrix of some prompts, by position or boolean mask, in that order."""
        at = np.arange(len(self))[np.asarray(index)]
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in at),
            tags=tuple(self.tags[i] for i in at),
            reward_PM=self.reward_PM[at],
            tokens_PM=_of(self.tokens_PM)[at],
            price_PM=_of(self.price_PM)[at],
            latency_PM=_of(self.latency_PM)[at],
            text_PM=tuple(self.text_PM[i] for i in at) if self.text_PM else (),
        )

    def pool(self, models: Sequence[str]) -> "ResponseMatrix":
        """The matrix of some models, in that order. InputError for a model it does not have."""
        for m in models:
            if m not in self.models:
                raise unknown("model", m, self.models)
        at = [self.models.index(m) for m in models]
        return replace(
            self,
            models=tuple(models),
            reward_PM=self.reward_PM[:, at],
            tokens_PM=_of(self.tokens_PM)[:, at],
            price_PM=_of(self.price_PM)[:, at],
            latency_PM=_of(self.latency_PM)[:, at],
            text_PM=tuple(tuple(row[i] for i in at) for row in self.text_PM),
        )

    def table(self) -> list[dict[str, Any]]:
        """The long form, one row a measured cell, with the columns of `COLUMNS` (None where unknown)."""
        rows = []
        for p, prompt in enumerate(self.prompts):
            for m in np.flatnonzero(~np.isnan(self.reward_PM[p])):
                cell = (self.reward_PM, _of(self.tokens_PM), _of(self.price_PM), _of(self.latency_PM))
                numbers = (None if math.isnan(a[p, m]) else float(a[p, m]) for a in cell)
                text = self.text_PM[p][m] if self.text_PM else None
                values = (prompt.id, user_text(prompt), self.models[m], *numbers, list(self.tags[p]), text)
                rows.append(dict(zip(COLUMNS, values, strict=True)))
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the long form: Parquet, or JSON lines for a name that ends in .jsonl or .jsonl.gz."""
        import pyarrow as pa
        import pyarrow.parquet

        file = Path(path)
        if file.suffix == ".parquet":
            types = [pa.string()] * 3 + [pa.float64()] * 4 + [pa.list_(pa.string()), pa.string()]
            schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
            publish(file, partial(pyarrow.parquet.write_table, pa.Table.from_pylist(self.table(), schema=schema)))
            return
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.table()).encode()
        publish(file, lambda tmp: tmp.write_bytes(gzip.compress(lines) if file.suffix == ".gz" else lines))

    def groups(self) -> list[Group]:
        """One group a prompt, completion m from model m, so that any RewardFn can rank them (missing cells left out).

        InputError when the matrix has no texts.
        """
        if not self.text_PM:
            raise InputError("this matrix has no texts, so there is nothing to rank; import a table with completions")
        out = []
        for p, prompt in enumerate(self.prompts):
            at = [int(m) for m in np.flatnonzero(~np.isnan(self.reward_PM[p]))]
            completions = tuple(Completion(self.text_PM[p][m], self.models[m], 0, i) for i, m in enumerate(at))
            out.append(Group(prompt, completions, tuple(Reward(float(self.reward_PM[p, m])) for m in at)))
        return out


def from_cells(cells: Iterable[Mapping[str, Any]], *, where: str = "rows") -> ResponseMatrix:
    """A matrix from its long form: rows with `prompt`, `model`, `reward`, and if known the other `COLUMNS`.

    Without `prompt_id` the fingerprint of prompt and tags serves. A null or NaN reward is a missing cell; numbers may
    be text (`data.cells`). `where` is a row's place in its file, `target` what its prompt carries. Several rewards of
    one cell (several samples) become their mean; `note` says how many were merged, and how many prompts have the same
    text. InputError names the row and the field.
    """
    prompts: dict[str, Prompt] = {}
    tags: dict[str, tuple[str, ...]] = {}
    models: dict[str, int] = {}
    seen: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for n, cell in enumerate(cells, 1):
        place = cell.get("where") or f"{where}, row {n}"
        for key in ("prompt", "model"):
            if not isinstance(cell.get(key), str) or not cell[key]:
                raise InputError(f"{place}: field {key!r} must be a text that is not empty, got {cell.get(key)!r}")
        if "reward" not in cell:
            raise InputError(f"{place}: no field 'reward'; it has {', '.join(map(str, cell))}")
        label = _tags(place, cell.get("tags"))
        given = cell.get("prompt_id")
        named = given is not None and given == given and given != ""
        id = str(given) if named else fingerprint([cell["prompt"], label])
        prompt = Prompt(id, ({"role": "user", "content": cell["prompt"]},), cell.get("target"), where)
        if user_text(prompts.setdefault(id, prompt)) != cell["prompt"]:
            raise InputError(f"{place}: prompt_id {id!r} was used before for another prompt")
        tags.setdefault(id, label)
        models.setdefault(cell["model"], len(models))
        numbers = {k: number(place, k, cell.get(k)) for k in ("reward", "tokens", "price", "latency")}
        seen.setdefault((id, cell["model"]), []).append({**numbers, "text": cell.get("text")})
    if not prompts:
        raise InputError(f"{where}: no rows; a response matrix needs prompts, models and rewards")
    at = {id: i for i, id in enumerate(prompts)}
    arrays = {k: np.full((len(prompts), len(models)), np.nan) for k in ("reward", "tokens", "price", "latency")}
    text = [[""] * len(models) for _ in prompts]
    for (id, model), same in seen.items():
        for key, array in arrays.items():
            array[at[id], models[model]] = _mean(c[key] for c in same)
        text[at[id]][models[model]] = str(same[0].get("text") or "")
    merged = sum(len(s) - 1 for s in seen.values())
    known = tuple(map(tuple, text)) if any(t for row in text for t in row) else ()
    same_text = len(prompts) - len({user_text(p) for p in prompts.values()})
    note = f"{merged} repeated cells averaged; {same_text} prompts repeat another's text"
    return ResponseMatrix(
        tuple(prompts.values()), tuple(models), arrays["reward"], tuple(tags.values()),
        arrays["tokens"], arrays["price"], arrays["latency"], known, note if merged or same_text else "",
    )  # fmt: skip


def from_groups(groups: Iterable[Group], *, tags: Mapping[str, Sequence[str]] | None = None) -> ResponseMatrix:
    """A matrix from scored groups whose completions name their model; samples of one model are averaged.

    Groups of the same prompt id are joined, so a pool may be sampled one model at a time. Unscored is missing; groups
    without rewards are refused. `tags` maps prompt ids to labels; without it a prompt's `source` is its tag.
    """
    cells: list[dict[str, Any]] = []
    messages: dict[str, Prompt] = {}
    for g in groups:
        if not g.rewards:
            raise InputError(f"prompt {g.prompt.id} was never scored; score the groups before building the matrix")
        messages.setdefault(g.prompt.id, g.prompt)
        label = list(tags.get(g.prompt.id, ())) if tags is not None else [g.prompt.source] if g.prompt.source else []
        for c, r in zip(g.completions, g.rewards, strict=True):
            tokens = c.paid_tokens
            row = {"prompt_id": g.prompt.id, "prompt": user_text(g.prompt), "model": c.model, "reward": r.value}
            cells.append({**row, "tokens": tokens, "tags": label, "text": c.text})
    matrix = from_cells(cells, where="groups")
    return replace(matrix, prompts=tuple(messages[p.id] for p in matrix.prompts))


def split_matrix(
    matrix: ResponseMatrix, test: float = 0.2, seed: int = 0
) -> tuple[ResponseMatrix, ResponseMatrix, int]:
    """(train, test, moved): a random split in which prompts of the same text are on one side.

    Prompts whose text is that of a train prompt are moved from test to train; `moved` counts them.
    """
    if not 0 < test < 1:
        raise InputError(f"test must be a share between 0 and 1, got {test!r}")
    order = np.random.default_rng(seed).permutation(len(matrix))
    cut = round(test * len(matrix))
    texts = [normal_text(user_text(p)) for p in matrix.prompts]
    known = {texts[i] for i in order[cut:]}
    moved = [i for i in order[:cut] if texts[i] in known]
    held = [i for i in order[:cut] if texts[i] not in known]
    if not held or len(held) == len(matrix):
        raise InputError(f"a test share of {test} of {len(matrix)} prompts leaves one side empty")
    return matrix.rows([*order[cut:], *moved]), matrix.rows(held), len(moved)


def overlap(train: ResponseMatrix, test: ResponseMatrix, n: int = 6) -> tuple[int, npt.NDArray[np.bool_]]:
    """Contamination of a split: (test prompts whose text occurs in train, train prompts sharing an n-gram with test).

    The paper drops training prompts that share a 6-gram of words with the evaluation set; the mask says which, so
    `train.rows(~mask)` is the clean set. Prompts shorter than n words are compared whole.
    """
    seen = {normal_text(user_text(p)) for p in train.prompts}
    same = sum(normal_text(user_text(p)) in seen for p in test.prompts)
    held = {g for p in test.prompts for g in _ngrams(user_text(p), n)}
    return same, np.array([not held.isdisjoint(_ngrams(user_text(p), n)) for p in train.prompts], bool)


def normal_text(text: str) -> str:
    """A text without case and runs of space: two prompts with the same one are the same prompt."""
    return " ".join(text.lower().split())


def _ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def _of(array: Array | None) -> Array:
    assert array is not None  # __post_init__ fills it
    return array


def _tags(where: str, value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Sequence) and all(isinstance(t, str) for t in value):
        return tuple(dict.fromkeys(value))
    raise InputError(f"{where}: field 'tags' must be a text or a list of texts, got {value!r}")


def _mean(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan
