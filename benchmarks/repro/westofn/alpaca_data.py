"""AlpacaEval answers (16 models that two annotators judged, 94 in all) to groups, both annotators' labels, and vectors.

Data: `alpacaeval/pool_train.jsonl.gz` under TRIMTAB_DATA (604 prompts). `labels()` has, for every prompt and model, the
label of gpt4_turbo against gpt4_1106_preview ("w", 1 to 2) and of gpt4 against text_davinci_003 ("g4", 1, 1.5 or 2).
Vectors are cached under RUNS (default runs/westofn). `python alpaca_data.py` makes the slow ones (MiniLM, 16 models).
"""

import gzip
import json
import os
import re
from pathlib import Path

import numpy as np

from trimtab.types import Completion, Group, Prompt

DATA = Path(os.environ.get("TRIMTAB_DATA", Path(__file__).parents[4] / "shared" / "data"))
RUNS = Path(os.environ.get("RUNS", "runs/westofn"))
NOT_MODELS = ("NullModel", "gpt4_gamed")


def rows() -> list[dict]:
    with gzip.open(DATA / "alpacaeval" / "pool_train.jsonl.gz", "rt") as f:
        return [json.loads(line) for line in f]


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


def form_vectors(gs: list[Group]) -> list[np.ndarray]:
    return [np.array([form(g.prompt.messages[0]["content"], c.text) for c in g.completions], np.float32) for g in gs]


def cut(text: str, most: int = 220) -> str:
    return text if len(text) <= 2 * most else text[:most] + "\n...\n" + text[-most:]


def minilm(data: list[dict], models: list[str]) -> list[np.ndarray]:
    """(M, 384) MiniLM vectors a prompt, of the first and last 220 characters; cached by prompt."""
    from trimtab.embeddings import Encoder

    folder = RUNS / "minilm"
    folder.mkdir(parents=True, exist_ok=True)
    encoder, out = Encoder(overflow="head+tail", batch=16), []
    for g in groups(data, models):
        file = folder / f"{g.prompt.id}.npy"
        if not file.exists():
            short = [Completion(cut(c.text), c.model, 0, c.index) for c in g.completions]
            prompt = Prompt(g.prompt.id, ({"role": "user", "content": cut(g.prompt.messages[0]["content"], 150)},))
            (vectors,) = encoder([Group(prompt, tuple(short))])
            np.save(file.with_suffix(".tmp.npy"), vectors)
            file.with_suffix(".tmp.npy").rename(file)
        out.append(np.load(file))
    return out


if __name__ == "__main__":
    everything = rows()
    both, rest = names(everything)
    print(len(everything), "prompts;", len(both), "models with both labels,", len(rest), "others")
    print(sum(len(v) for v in minilm(everything, both)), "MiniLM vectors")
