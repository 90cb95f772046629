"""Prompts to VECTORS without running a model: the mean of a language model's own input embeddings.

Between hashed n-grams, which know only the letters, and a sentence encoder, which costs a forward pass: what takes time
is the tokenizer. No window, no order of words. For routers; completions have better embedders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.embeddings.text import by_group, completion_texts, prompt_text
from trimtab.errors import ModelError
from trimtab.lm import catalog, weights
from trimtab.types import Group, Prompt

Vectors = npt.NDArray[np.float32]
_TABLES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


@dataclass(frozen=True)
class StaticVectors:
    """Texts to (P, D) float32, length 1: input embeddings of the text's tokens, a token's weight log(1 + its count).

    `model` is a catalogue name or a folder; only its embedding table and its tokenizer are read. A text without a token
    gives zeros.
    """

    model: str = "smollm2-135m"

    @property
    def card(self) -> dict[str, Any]:
        """What a learned object must be used with again. Loads nothing."""
        return {"kind": "static", "model": self.model, "revision": catalog.revision(self.model)}

    def __call__(self, groups: Sequence[Group]) -> list[Vectors]:
        """One (N, D) array a group, of prompt and completion joined."""
        return by_group(self._vectors(completion_texts(groups)), groups)

    def embed_prompts(self, prompts: Sequence[Prompt]) -> Vectors:
        """(P, D) vectors of the prompts alone, what a router reads."""
        return self._vectors([prompt_text(p) for p in prompts])

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        table_VD, tokenizer = _load(self.model)
        out = np.zeros((len(texts), table_VD.shape[1]), np.float32)
        for row, text in zip(out, texts, strict=True):
            ids, count = np.unique(tokenizer(text, add_special_tokens=False)["input_ids"], return_counts=True)
            if len(ids):
                mean = np.log1p(count).astype(np.float32) @ table_VD[ids.astype(int)]
                row[:] = mean / max(float(np.linalg.norm(mean)), 1e-9)
        return out


@lru_cache(maxsize=2)
def _load(name: str) -> tuple[Vectors, Any]:
    from safetensors import safe_open

    from trimtab.lm.load import load_tokenizer

    folder = catalog.locate(name, "torch")
    if problems := weights.file_problems(folder):
        raise ModelError(f"{name}: {'; '.join(problems)}")
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as f:  # numpy has no bfloat16
            for key in f.keys():  # noqa: SIM118  (not a mapping)
                if key.endswith(_TABLES):
                    table = f.get_tensor(key).float().numpy()
                    return table - table.mean(0), load_tokenizer(name)  # the common direction says nothing
    raise ModelError(f"{name}: no table of input embeddings in {folder} (looked for {', '.join(_TABLES)})")
