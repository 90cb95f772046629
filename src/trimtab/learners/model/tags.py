"""Labels of prompts (tags) to smoother targets for a router, and prompts to tags. Pure numpy.

Zooter's label enhancement (Lu et al., NAACL 2024, section 3.3): a noisy reward is mixed with the mean of its tags. A
tagger is a function of texts; the ones here are keywords, clusters of embeddings and an LLM's answers (InsTag's way).
Task labels that the data carries are tags already. It does not train routers.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.json_file import Kinds, parse_json, read_lines
from trimtab.learners.model.common import known_sets
from trimtab.publish import publish
from trimtab.types import Prompt, Sampler, SamplingParams, fingerprint

Array = npt.NDArray[np.float64]
Tags = Sequence[Sequence[str]]
TAG_PROMPT = (
    "List the topics and the kind of task of the request below: one to three short tags, lower case, separated by "
    "commas, nothing else.\n\nRequest: {text}\n\nTags:"
)


class TagMeans(NamedTuple):
    """`names` of T tags, `mean_TM` the mean over each tag's prompts, and `member_PT` 1 where prompt p has tag t."""

    names: tuple[str, ...]
    mean_TM: Array
    member_PT: Array


def tag_means(value_PM: npt.ArrayLike, tags: Tags) -> TagMeans:
    """Mean of `value_PM` over the prompts of each tag, NaN cells left out (a tag's unseen model gets the pool's mean).

    s_t = 1/|Q_t| Σ_{i in Q_t} s(q_i). InputError when tags and rows disagree in number or no prompt has a tag.
    """
    value = np.asarray(value_PM, float)
    if len(tags) != len(value):
        raise InputError(f"{len(tags)} rows of tags for {len(value)} prompts; give one row a prompt")
    names = tuple(sorted({t for row in tags for t in row}))
    if not names:
        raise InputError("no prompt has a tag; give task labels or let a tagger make some (clusters, keywords)")
    place = {t: i for i, t in enumerate(names)}
    member = np.zeros((len(value), len(names)))
    for p, row in enumerate(tags):
        member[p, [place[t] for t in row]] = 1
    known = ~np.isnan(value)
    count = member.T @ known
    overall = np.where(known, value, 0).sum(0) / np.maximum(known.sum(0), 1)
    total = member.T @ np.where(known, value, 0)
    return TagMeans(names, np.where(count > 0, total / np.maximum(count, 1), overall), member)


def smooth(value_PM: npt.ArrayLike, tags: Tags, beta: float = 0.3) -> Array:
    """beta · value + (1 - beta) · the uniform average of the means of the prompt's tags, shape (P, M).

    On silver labels (softmax of rewards) this is the NAACL form, on raw rewards the form of arXiv v1. beta = 1 leaves
    the values, beta = 0 keeps the tags alone. A prompt without a tag keeps its own value, a missing cell stays NaN.
    With cells missing a row is mixed with rows that know all that it knows, and rows that are distributions over what
    they know stay such: means of distributions over different models neither sum to 1 nor rank.
    """
    if not 0 <= beta <= 1:
        raise InputError(f"beta must lie between 0 (tags only) and 1 (no tags), got {beta}")
    value = np.asarray(value_PM, float)
    if beta == 1:
        return value
    known = ~np.isnan(value)
    if known.all() or not any(tags):
        return _smooth(value, tags, beta)
    shares, out = np.allclose(np.nansum(value, axis=1)[known.any(1)], 1), np.full_like(value, np.nan)
    for known_M, rows, within in known_sets(known):
        block, own = value[np.ix_(within, known_M)], [tags[int(i)] for i in within]
        if shares:
            mass = block.sum(1, keepdims=True)
            block = np.where(mass > 0, block / np.where(mass > 0, mass, 1), 1 / block.shape[1])
        mixed = _smooth(block, own, beta) if any(own) else block
        out[np.ix_(rows, known_M)] = mixed[np.searchsorted(within, rows)]
    return out


def _smooth(value: Array, tags: Tags, beta: float) -> Array:
    _, mean_TM, member = tag_means(value, tags)
    count = member.sum(1, keepdims=True)
    tagged = member @ mean_TM / np.maximum(count, 1)
    return np.where(count > 0, beta * value + (1 - beta) * tagged, value)


def keyword_tags(texts: Sequence[str], keywords: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The tags one of whose words (whole words, any case) occurs in the text: {"code": ["python", "def"]}."""
    found = {t: re.compile(r"(?<!\w)(" + "|".join(map(re.escape, w)) + r")(?!\w)", re.I) for t, w in keywords.items()}
    return [[t for t, pattern in found.items() if pattern.search(text)] for text in texts]


def cluster_tags(vectors_PD: npt.ArrayLike, k: int = 16, seed: int = 0) -> tuple[list[list[str]], Array]:
    """One tag a prompt, its nearest of k (at most P) clusters ("c0" ...), and the centres (k, D)."""
    X = np.asarray(vectors_PD, float)
    centre = kmeans(X, min(k, len(X)), seed)
    return [[f"c{i}"] for i in nearest(X, centre)], centre


def kmeans(X_PD: Array, k: int, seed: int = 0, rounds: int = 25) -> Array:
    """Centres (k, D) by Lloyd's rounds from a k-means++ start. Same seed, same centres."""
    rng = np.random.default_rng(seed)
    centre = X_PD[[rng.integers(len(X_PD))]]
    while len(centre) < k:
        gap = np.maximum(_distance(X_PD, centre).min(1), 0)
        p = gap / gap.sum() if gap.sum() > 0 else None
        centre = np.concatenate([centre, X_PD[[rng.choice(len(X_PD), p=p)]]])
    for _ in range(rounds):
        at = nearest(X_PD, centre)
        moved = np.array([X_PD[at == c].mean(0) if (at == c).any() else centre[c] for c in range(k)])
        if np.allclose(moved, centre):
            break
        centre = moved
    return centre


def nearest(X_PD: Array, centre_KD: Array) -> npt.NDArray[np.intp]:
    """Index of each row's nearest centre (Euclidean), shape (P,)."""
    return _distance(X_PD, centre_KD).argmin(1)


def llm_tags(
    texts: Sequence[str], ask: Callable[[Sequence[str]], Sequence[str | None]], cache: Path, *, batch: int = 64
) -> list[list[str]]:
    """InsTag-style tags from an LLM: `ask` answers prompts (`asking` makes one of a sampler).

    `cache` (JSON lines) keeps every answer as soon as its batch is there, so each text is paid once and a killed run
    goes on. Answers are split at commas; an answer without a tag gives none, and so does None (no answer), which is
    asked for again the next time. InputError names a broken cache line.
    """
    known = _cached(cache)
    todo = list(dict.fromkeys(t for t in texts if t not in known))
    cache.parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(todo), batch):
        chunk = todo[start : start + batch]
        answers = ask([TAG_PROMPT.format(text=t) for t in chunk])
        with cache.open("a", encoding="utf-8") as out:
            for text, answer in zip(chunk, answers, strict=True):
                if answer is None:
                    known[text] = []
                    continue
                line = answer.strip().splitlines()[0] if answer.strip() else ""
                words = (re.sub(r"[^\w +#-]", "", w).strip().lower() for w in line.split(","))
                known[text] = list(dict.fromkeys(w for w in words if w))
                out.write(json.dumps({"text": text, "tags": known[text]}, ensure_ascii=False) + "\n")
    return [known[t] for t in texts]


def asking(sampler: Sampler, max_tokens: int = 24) -> Callable[[Sequence[str]], list[str | None]]:
    """`ask` for `llm_tags` from a sampler: each text is one user message, answered greedily."""

    def ask(texts: Sequence[str]) -> list[str | None]:
        prompts = [Prompt(fingerprint(t), ({"role": "user", "content": t},)) for t in texts]
        groups = sampler(prompts, 1, SamplingParams(temperature=0.0, top_p=1.0, max_tokens=max_tokens))
        return [None if g.completions[0].failed else g.completions[0].text for g in groups]

    return ask


def _cached(cache: Path) -> dict[str, list[str]]:
    known: dict[str, list[str]] = {}
    _drop_cut_line(cache)
    for n, line in enumerate(read_lines(cache, "the tagger's answers") if cache.is_file() else (), 1):
        kinds: Kinds = {"text": str, "tags": list}
        row = parse_json(line, f"{cache}:{n}", "an answer of the tagger", kinds, do="remove this line")
        if not all(isinstance(t, str) for t in row["tags"]):
            raise InputError(f"{cache}:{n}: is not an answer of the tagger: a tag is no text; remove this line")
        known[row["text"]] = row["tags"]
    return known


def _drop_cut_line(cache: Path) -> None:
    """A killed run leaves its last line half-written: it is taken off, and its text is asked for again."""
    if cache.is_file() and not (raw := cache.read_bytes()).endswith(b"\n"):
        publish(cache, lambda tmp: tmp.write_bytes(raw[: raw.rfind(b"\n") + 1]))


def _distance(X_PD: Array, centre_KD: Array) -> Array:
    return (X_PD**2).sum(1)[:, None] + (centre_KD**2).sum(1)[None] - 2 * X_PD @ centre_KD.T
