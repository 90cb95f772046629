"""COMPLETIONS, or prompts alone, to VECTORS with a sentence encoder (sentence-transformers).

For routers, which see only prompts, and for probes where the sampler's own states cannot be had. It reads text, so it
knows nothing of templates; what exceeds its window is refused unless head and tail were asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.embeddings.text import by_group, completion_texts, prompt_text
from trimtab.errors import InputError, ModelError, unknown
from trimtab.lm import catalog
from trimtab.progress import working
from trimtab.types import Group, Prompt

OVERFLOW = ("refuse", "head+tail")
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder as an Embedder: the vector of prompt and completion joined, float32, as the model scales it.

    `overflow` says what becomes of a text longer than the window (256 tokens for all-minilm-l6-v2): "refuse" is an
    InputError that counts them, "head+tail" keeps the first and the last half window. It is part of the card.
    """

    model: str = "all-minilm-l6-v2"
    overflow: str = "refuse"
    batch: int = 64
    device: str | None = None

    def __post_init__(self) -> None:
        if self.overflow not in OVERFLOW:
            raise unknown("overflow policy", self.overflow, OVERFLOW)

    @property
    def card(self) -> dict[str, Any]:
        """What a learned object must be used with again. Loads nothing."""
        revision = catalog.revision(self.model)
        return {"kind": "encoder", "model": self.model, "revision": revision, "overflow": self.overflow}

    def __call__(self, groups: Sequence[Group]) -> list[Vectors]:
        """One (N, D) array a group. InputError when texts exceed the window and `overflow` is "refuse"."""
        names = [f"prompt {g.prompt.id!r} completion {c.index}" for g in groups for c in g.completions]
        return by_group(self._encode(completion_texts(groups), names), groups)

    def embed_prompts(self, prompts: Sequence[Prompt]) -> Vectors:
        """(P, D) vectors of the prompts alone, what a router reads. Same errors as a call."""
        return self._encode([prompt_text(p) for p in prompts], [f"prompt {p.id!r}" for p in prompts])

    def _encode(self, texts: Sequence[str], names: Sequence[str]) -> Vectors:
        encoder = _load(self.model, self.device)
        fitting = self._fitting(encoder, texts, names)
        unique = list(dict.fromkeys(fitting))  # identical completions are encoded once
        if not unique:
            return np.empty((0, encoder.get_embedding_dimension()), dtype=np.float32)
        vectors_XD = encoder.encode(unique, batch_size=self.batch, show_progress_bar=False, convert_to_numpy=True)
        place = {t: n for n, t in enumerate(unique)}
        return np.asarray(vectors_XD, dtype=np.float32)[[place[t] for t in fitting]]

    def _fitting(self, encoder: Any, texts: Sequence[str], names: Sequence[str]) -> list[str]:
        window = encoder.max_seq_length
        if not texts or not window:
            return list(texts)
        lengths = [len(ids) for ids in _tokens(encoder.tokenizer, texts)["input_ids"]]
        long = [n for n, length in enumerate(lengths) if length > window]
        if long and self.overflow == "refuse":
            named = "; ".join(f"{names[n]} ({lengths[n]} tokens)" for n in long[:3]) + ("; ..." if long[3:] else "")
            raise InputError(
                f"{len(long)} of {len(texts)} texts exceed the window of {self.model}, {window} tokens: {named}. "
                'Pass overflow="head+tail" to keep the beginning and the end of each, or use HiddenStates.'
            )
        out = list(texts)
        for n in long:
            out[n] = head_and_tail(encoder.tokenizer, texts[n], window)
        return out


def head_and_tail(tokenizer: Any, text: str, window: int) -> str:
    """The beginning and the end of `text`, about half of `window` tokens each, joined by a line with an ellipsis."""
    spans = _tokens(tokenizer, [text], return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"][0]
    half = (window - 6) // 2  # special tokens, the ellipsis, and a token that the cut may split
    while True:
        cut = text[: spans[half - 1][1]] + "\n...\n" + text[spans[-half][0] :]
        if len(_tokens(tokenizer, [cut])["input_ids"][0]) <= window or half <= 1:
            return cut
        half -= 1


def _tokens(tokenizer: Any, texts: Sequence[str], **options: Any) -> Any:
    return tokenizer(list(texts), truncation=False, verbose=False, **options)


@lru_cache(maxsize=2)
def _load(name: str, device: str | None) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as e:
        raise ModelError("sentence encoders need the extra: pip install 'trimtab[encoders]'") from e
    folder = catalog.locate(name, "encoder")
    try:
        with working(f"loading {name}"):
            return SentenceTransformer(str(folder), device=device, local_files_only=True)
    except Exception as e:  # anything from KeyError to SafetensorError
        raise ModelError(f"{name}: no sentence encoder can be loaded from {folder} ({type(e).__name__}: {e})") from e
