"""AlpacaEval answers (16 models that two annotators judged, 94 in all) to groups, both annotators' labels, and vectors.

Data: the input alpacaeval (604 prompts). `labels()` has, for every prompt and model, the
label of gpt4_turbo against gpt4_1106_preview ("w", 1 to 2) and of gpt4 against text_davinci_003 ("g4", 1, 1.5 or 2).
Word vectors are kept in a folder, and so are the log-likelihoods of pairs (`Likelihood`).
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import lines
from trimtab.learners.completion.west_of_n.pseudo_pairs import PseudoPair
from trimtab.lm.forward import completion_logprobs
from trimtab.lm.load import load_lm
from trimtab.types import Completion, Group, Prompt, fingerprint

NOT_MODELS = ("NullModel", "gpt4_gamed")


def rows() -> list[dict]:
    return [json.loads(line) for line in lines("alpacaeval")]


def names(data: list[dict]) -> tuple[list[str], list[str]]:
    """(models with both labels, then the others): every order that follows is this one."""
    found = sorted({m for r in data for m in r["models"] if m not in NOT_MODELS})
    labelled = {m: [sum(k in r["models"].get(m, {}) for r in data) for k in ("w", "g4")] for m in found}
    both = [m for m in found if min(labelled[m]) > 0.95 * len(data)]
    return both, [m for m in found if m not in both]


def groups(data: list[dict], models: list[str]) -> list[Group]:
    """One group a prompt with the answers of `models` that there are, in that order; completion.model names it."""
    return [
        Group(
            Prompt(str(r["id"]), ({"role": "user", "content": r["instruction"]},)),
            tuple(Completion(r["models"][m]["out"], m, 0, i) for i, m in enumerate(models) if m in r["models"]),
        )
        for r in data
    ]


def labels(data: list[dict], models: list[str], key: str) -> np.ndarray:
    """(P, M) labels, NaN where an annotator gave none."""
    return np.array([[r["models"].get(m, {}).get(key) or np.nan for m in models] for r in data], dtype=float)


FORM = (
    r"\n",
    r"\n\s*[-*]\s",
    r"\n\s*\d+[.)]\s",
    r"\*\*",
    r"```",
    r"\?",
    r"!",
    r"(?i)\bsorry\b|\bI cannot\b|as an AI",
    r"#",
    r"\d",
)


def form(prompt: str, text: str) -> list[float]:
    """Length, counts of marks of form, share of the prompt's words that the answer takes up."""
    words = set(re.findall(r"\w+", prompt.lower()))
    used = set(re.findall(r"\w+", text.lower()))
    return [
        np.log1p(len(text)), *(np.log1p(len(re.findall(p, text))) for p in FORM),
        len(words & used) / max(len(words), 1), len(used) / max(len(text.split()), 1),
        float(text.rstrip().endswith(".")),
    ]  # fmt: skip


def form_vectors(gs: list[Group], folder: Path) -> list[np.ndarray]:
    """Marks of form of every answer; kept in `folder`."""
    return cached(
        folder, "form", gs, lambda: [form(g.prompt.messages[0]["content"], c.text) for g in gs for c in g.completions]
    )


def cached(folder: Path, kind: str, gs: list[Group], make: Callable[[], Any]) -> list[np.ndarray]:
    """What `make` gives, a row an answer, split by prompt; kept in a file named after the answers."""
    folder.mkdir(parents=True, exist_ok=True)
    name = fingerprint([[g.prompt.id, [c.model for c in g.completions]] for g in gs])[:12]
    file = folder / f"{kind}-{name}.npy"
    if not file.exists():
        tmp = file.with_suffix(".tmp.npy")
        np.save(tmp, np.asarray(make(), dtype=np.float32))
        tmp.rename(file)
    return np.split(np.load(file), np.cumsum([len(g.completions) for g in gs])[:-1])


def word_vectors(gs: list[Group], folder: Path, dim: int = 256) -> list[np.ndarray]:
    """Hashed n-grams of every answer; kept in `folder`."""
    from trimtab.embeddings import HashedNgrams

    texts = [Prompt("", ({"role": "user", "content": c.text or " "},)) for g in gs for c in g.completions]
    return cached(folder, f"ngrams-{dim}", gs, lambda: HashedNgrams(dim).embed_prompts(texts))


class Likelihood:
    """Gives pairs the mean log-probs of both answers under a small language model, for no policy sampled all of them.

    Only the first `characters` of an answer are read, for time. Every answer is scored once and kept in `folder`.
    """

    def __init__(self, folder: Path, model: str = "smollm2-135m", characters: int = 400):
        self.model, self.characters = model, characters
        self.file = folder / f"likelihood-{model}-{characters}.json"
        self.known: dict[str, float] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def __call__(self, pairs: list[PseudoPair]) -> list[PseudoPair]:
        missing: dict[str, tuple[Prompt, list[str]]] = {}
        for p in pairs:
            for c in (p.pair.chosen, p.pair.rejected):
                if self._key(p.pair.prompt, c) not in self.known:
                    missing.setdefault(p.pair.prompt.id, (p.pair.prompt, []))[1].append(self._cut(c))
        groups = [
            Group(p, tuple(Completion(t, "", 0, i, "length") for i, t in enumerate(ts))) for p, ts in missing.values()
        ]
        if groups:
            for g, rows in zip(groups, completion_logprobs(load_lm(self.model), groups), strict=True):
                self.known |= {
                    self._key(g.prompt, c): float(x.mean()) for c, x in zip(g.completions, rows, strict=True)
                }
            self.file.write_text(json.dumps(self.known))
        return [
            replace(
                p, mean_logprob=sum(self.known[self._key(p.pair.prompt, c)] for c in (p.pair.chosen, p.pair.rejected))
            )
            for p in pairs
        ]

    def _key(self, prompt: Prompt, c: Completion) -> str:
        return fingerprint([prompt.id, self._cut(c)])

    def _cut(self, c: Completion) -> str:
        return c.text[: self.characters] or " "


def hints(words: np.ndarray, form_N: np.ndarray) -> np.ndarray:
    """What one answer alone does not show: likeness to the prompt's other answers, and form against theirs."""
    unit = words / np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-9)
    centre = unit.mean(0)
    near = unit @ centre / max(float(np.linalg.norm(centre)), 1e-9)
    length = form_N[:, 0]
    away = np.abs(length - np.median(length))
    ranks = np.argsort(np.argsort(form_N, axis=0, kind="stable"), axis=0, kind="stable") / max(len(form_N) - 1, 1)
    return np.concatenate([near[:, None], away[:, None], ranks], axis=1).astype(np.float32)
