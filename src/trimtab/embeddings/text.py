"""Groups to the texts that text encoders read: the prompt's messages, then the completion. No template, no model."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from trimtab.types import Group, Prompt, message_text


def prompt_text(prompt: Prompt) -> str:
    """The contents of the prompt's messages, separated by blank lines."""
    return "\n\n".join(map(message_text, prompt.messages))


def completion_texts(groups: Sequence[Group]) -> list[str]:
    """Prompt and completion of every completion, in order: raw text continues as it is, chat gets a blank line."""
    texts = []
    for g in groups:
        start, raw = prompt_text(g.prompt), [m["role"] for m in g.prompt.messages] == ["text"]
        texts += [start + ("" if raw else "\n\n") + c.text for c in g.completions]
    return texts


def by_group(vectors: npt.NDArray[np.float32], groups: Sequence[Group]) -> list[npt.NDArray[np.float32]]:
    """(all completions, D) to one (N, D) array a group."""
    ends = np.cumsum([0, *(len(g.completions) for g in groups)])
    return [vectors[a:b] for a, b in pairwise(ends)]
