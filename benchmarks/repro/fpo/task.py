"""The task with an exact oracle: go on with a text's first words; the reward counts opinion words.

A completion's reward is (positive − negative words of Hu and Liu's opinion lexicon) / (positive + negative + 1), so it
lies in (−1, 1) and needs no model. Prompts are openings that the model itself wrote (stories), or the first six words
of SST-2 sentences (smollm2), as raw text. Data are read from TRIMTAB_DATA (nltk/opinion_lexicon.zip,
sst2/train.tsv.gz); none of it is in the repository.
"""

import re
import zipfile
from collections.abc import Sequence
from functools import cache

from benchmarks.data import find, lines
from trimtab.types import Group, Prompt, Reward, SamplingParams

WORDS = 6


@cache
def lexicon() -> tuple[frozenset[str], frozenset[str]]:
    """Positive and negative opinion words."""
    found = []
    with zipfile.ZipFile(find("opinion_lexicon")) as z:
        for name in ("positive-words.txt", "negative-words.txt"):
            path = next(n for n in z.namelist() if n.endswith(name))
            rows = z.read(path).decode("latin-1").splitlines()
            found.append(frozenset(w.strip() for w in rows if w.strip() and not w.startswith(";")))
    return found[0], found[1]


def sentiment(groups: Sequence[Group]) -> list[list[Reward]]:
    """The oracle: opinion words of each completion, by rule."""
    return [[Reward(value(c.text)) for c in g.completions] for g in groups]


def value(text: str) -> float:
    """Positive less negative words over all opinion words and one."""
    positive, negative = lexicon()
    words = re.findall(r"[a-z][a-z'-]*", text.lower())
    good, bad = sum(w in positive for w in words), sum(w in negative for w in words)
    return (good - bad) / (good + bad + 1)


def openings(sampler, n: int) -> list[Prompt]:
    """Distinct first sentences-to-be: what the model itself writes in 24 tokens after the start of a text."""
    start = Prompt("start", ({"role": "text", "content": "<s>Once upon a time"},))
    params = SamplingParams(temperature=1.0, top_p=0.95, max_tokens=24, seed=11)
    (group,) = sampler([start], n + n // 4, params)
    texts = dict.fromkeys(f"<s>Once upon a time{c.text}" for c in group.completions if c.finish == "length")
    return [Prompt(f"story-{i}", ({"role": "text", "content": t},)) for i, t in enumerate(texts)][:n]


def reviews(n: int) -> list[Prompt]:
    """The first words of SST-2's first `n` sentences that are long enough."""
    seen: dict[str, None] = {}
    for line in lines("sst2_train"):
        words = line.rsplit("\t", 1)[0].split()
        if len(words) >= WORDS + 4:
            seen.setdefault(" ".join(words[:WORDS]))
        if len(seen) >= n:
            break
    return [Prompt(f"sst2-{i}", ({"role": "text", "content": t},)) for i, t in enumerate(seen)]
