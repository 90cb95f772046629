"""The task with an exact oracle: continue the first words of a film review; the reward counts opinion words.

Prompts are the first six words of SST-2 sentences as raw text; a completion's reward is (positive − negative words of
Hu and Liu's opinion lexicon) / (positive + negative + 1), so it lies in (−1, 1) and needs no model. Data are read from
TRIMTAB_DATA (sst2/train.tsv.gz, nltk/opinion_lexicon.zip); none of it is in the repository.
"""

import gzip
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from trimtab.types import Group, Prompt, Reward

DATA = Path(os.environ.get("TRIMTAB_DATA", Path(__file__).parents[4] / "shared" / "data"))
WORDS = 6


def lexicon() -> tuple[frozenset[str], frozenset[str]]:
    """Positive and negative opinion words."""
    found = []
    with zipfile.ZipFile(DATA / "nltk" / "opinion_lexicon.zip") as z:
        for name in ("positive-words.txt", "negative-words.txt"):
            path = next(n for n in z.namelist() if n.endswith(name))
            lines = z.read(path).decode("latin-1").splitlines()
            found.append(frozenset(w.strip() for w in lines if w.strip() and not w.startswith(";")))
    return found[0], found[1]


POSITIVE, NEGATIVE = lexicon()


def sentiment(groups: Sequence[Group]) -> list[list[Reward]]:
    """The oracle: opinion words of each completion, by rule."""
    return [[Reward(value(c.text)) for c in g.completions] for g in groups]


def value(text: str) -> float:
    words = re.findall(r"[a-z][a-z'-]*", text.lower())
    good, bad = sum(w in POSITIVE for w in words), sum(w in NEGATIVE for w in words)
    return (good - bad) / (good + bad + 1)


def prompts(n: int, skip: int = 0) -> list[Prompt]:
    """The first `n` distinct prefixes after `skip`, in the data's order."""
    seen: dict[str, None] = {}
    with gzip.open(DATA / "sst2" / "train.tsv.gz", "rt", encoding="utf-8") as f:
        for line in f:
            words = re.sub(r"^[01]\s+|\s+[01]$", "", line.strip()).split()
            if len(words) >= WORDS + 4:
                seen.setdefault(" ".join(words[:WORDS]))
            if len(seen) >= n + skip:
                break
    return [Prompt(f"sst2-{i}", ({"role": "text", "content": t},)) for i, t in enumerate(seen)][skip : skip + n]
