"""West-of-N's two costs: pairs from stored samples, and reward-model inference.

1. 64 stored samples a prompt, a probe teacher on stored hidden states, best against worst, confidence filter: pairs/s
   from the store, against the same with one forward pass a text (transformers, hidden states of the same layer) and the
   same probe. The states' own cost, paid once, is `embed_seconds_once`. `ratio` is ours over theirs.
2. A reward model (SmolLM2-135M with a fresh head, float32) over texts of mixed length: real tokens/s of `RewardModel`
   (batches by length) against transformers' text-classification pipeline in batches of 8 and of 32 in the order given;
   `rm_ratio` is ours over the better of the two. One text at a time pads nothing and is shown beside.
Both sides alternate; the rewards must agree to 1e-3. --small: a tiny random model (model=tiny).
"""

import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks.run import Run
from trimtab.embeddings import HiddenStates, Stored
from trimtab.learners import fit_probe_pairs, pseudo_pairs
from trimtab.learners.completion.reward_model import set_padding
from trimtab.learners.completion.west_of_n.pseudo_pairs import filter_pairs
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.lm.load import load_classifier, load_lm
from trimtab.rewards.reward_model import RewardModel
from trimtab.store import Store
from trimtab.testing import tiny_lm
from trimtab.types import Completion, Group, Pair, Prompt

SETTINGS = {
    "model": "smollm2-135m", "layer": 20, "n": 64, "prompts": 12, "their_prompts": 1, "texts": 48, "longest": 400,
    "rounds": 3, "warm": False,
}  # fmt: skip
SMALL = {"model": "tiny", "layer": 2, "prompts": 8, "texts": 24, "longest": 90, "rounds": 1, "warm": True}
WORDS = (
    "the",
    "of",
    "a",
    "to",
    "and",
    "in",
    "is",
    "it",
    "you",
    "that",
    "he",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
    "his",
)


def text(rng: np.random.Generator, words: int) -> str:
    return " " + " ".join(rng.choice(WORDS) for _ in range(words))


def sampled(rng: np.random.Generator, s) -> list[Group]:
    return [
        Group(
            Prompt(f"p{p}", ({"role": "text", "content": text(rng, 24).strip()},)),
            tuple(Completion(text(rng, int(rng.integers(4, 16))), "m", 0, i) for i in range(s.n)),
        )
        for p in range(s.prompts)
    ]


def build(groups: list[Group], teacher) -> list[tuple[str, int, int]]:
    made, _ = pseudo_pairs(groups, teacher)
    kept = filter_pairs(made, confidence=0.25 if len(made) > 1 else 0.0)
    return [(p.pair.prompt.id, p.pair.chosen.index, p.pair.rejected.index) for p in kept]


@torch.inference_mode()
def forward_each(lm, probe, groups: list[Group], layer: int) -> list[tuple[str, int, int]]:
    """The same pairs with a forward pass a text."""
    values = []
    for g in groups:
        prompt, states = encode_prompt(lm.tokenizer, g.prompt), []
        for c in g.completions:
            ids = torch.tensor([prompt + encode_completion(lm.tokenizer, c)])
            out = lm.model(ids, use_cache=False, output_hidden_states=True, logits_to_keep=1)
            states.append(out.hidden_states[layer][0, -1].float().numpy())
        values.append(probe.values(np.stack(states)))
    return [(g.prompt.id, int(v.argmax()), int(v.argmin())) for g, v in zip(groups, values, strict=True)]


def pairs_side(model: str, folder: Path, s) -> dict:
    rng = np.random.default_rng(0)
    groups, lm, store = sampled(rng, s), load_lm(model, "float32"), Store(folder / "run")
    store.add_prompts([g.prompt for g in groups], "pool")
    with store.writer("completions/pool", {"n": s.n}) as w:
        w.append_groups(groups)
    embed = Stored(HiddenStates(lm, (s.layer,)), store, "pool", keys=(f"layer{s.layer}.last",))
    embed_seconds = timed(lambda: embed(groups))[0]
    labelled = [Pair(g.prompt, g.completions[0], g.completions[1]) for g in groups]
    probe = fit_probe_pairs(labelled, embed, l2=1.0)
    some = groups[: s.their_prompts]
    build(groups, probe)
    forward_each(lm, probe, [Group(g.prompt, g.completions[:2]) for g in some], s.layer)
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(s.rounds):
        spent, kept = timed(lambda: build(groups, probe))
        rates["ours"].append(s.prompts / spent)  # pairs made, before the filter drops a quarter
        spent, theirs = timed(lambda: forward_each(lm, probe, some, s.layer))
        rates["theirs"].append(len(some) / spent)
        mine = {p: (c, r) for p, c, r in build(some, probe)}
        agree = [mine[p] == (c, r) for p, c, r in theirs if p in mine]
        print(f"pairs/s: ours {rates['ours'][-1]:.1f}, a forward a text {rates['theirs'][-1]:.3f}", flush=True)
    found = {k: statistics.median(v) for k, v in rates.items()}
    return {
        "ratio": round(found["ours"] / found["theirs"], 1), "pairs_s": {k: round(v, 3) for k, v in found.items()},
        "kept": len(kept), "same_pairs": f"{sum(agree)} of {len(agree)}",
        "embed_seconds_once": round(embed_seconds, 2),
    }  # fmt: skip


def reward_side(model: str, folder: Path, s) -> dict:
    from transformers import pipeline

    lm = load_classifier(model, "float32", new_head=True)
    set_padding(lm)
    lm.model.save_pretrained(folder / "rm")
    lm.tokenizer.save_pretrained(folder / "rm")
    rng = np.random.default_rng(1)
    sizes = np.clip(np.exp(rng.normal(4.0, 0.9, s.texts)), 8, s.longest).astype(int)
    groups = [
        Group(Prompt(f"q{i}", ({"role": "text", "content": "Question:"},)), (Completion(text(rng, int(n)), "m", 0, 0),))
        for i, n in enumerate(sizes)
    ]
    rm = RewardModel(str(folder / "rm"), rendering="tokens", dtype="float32", batch_tokens=2048)
    lm = rm.lm()
    tokens = sum(len(rm.tokens(g.prompt, g.completions[0])) for g in groups)
    joined = ["Question:" + g.completions[0].text + lm.tokenizer.eos_token for g in groups]
    pipe = pipeline("text-classification", model=lm.model, tokenizer=lm.tokenizer, function_to_apply="none")

    def theirs(batch: int) -> list[float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [r["score"] for r in pipe(joined, batch_size=batch)]

    ways = {"ours": lambda: [row[0].value for row in rm(groups)]}
    ways |= {f"pipeline_{b}": lambda b=b: theirs(b) for b in (8, 32, 1)}
    rates: dict[str, list[float]] = {k: [] for k in ways}
    values: dict[str, list[float]] = {}
    rm(groups[:2])
    theirs(2) if s.warm else None
    for _ in range(min(s.rounds, 2)):
        for name, way in ways.items():
            spent, values[name] = timed(way)
            rates[name].append(tokens / spent)
            print(f"reward model, {name}: {rates[name][-1]:.0f} tokens/s", flush=True)
    worst = max(np.abs(np.array(values["ours"]) - np.array(v)).max() for v in values.values())
    found = {k: statistics.median(v) for k, v in rates.items()}
    return {
        "rm_ratio": round(found["ours"] / max(found["pipeline_8"], found["pipeline_32"]), 3),
        "rm_ratio_one_by_one": round(found["ours"] / found["pipeline_1"], 3),
        "rm_tokens_s": {k: round(v, 1) for k, v in found.items()}, "rm_texts": s.texts, "rm_tokens": tokens,
        "rm_largest_difference": float(f"{worst:.2g}"),
    }  # fmt: skip


def timed(work) -> tuple[float, object]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def main(run: Run) -> None:
    s = run.settings
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        model = str(tiny_lm(folder / "lm", layers=4, hidden=128)) if s.model == "tiny" else s.model
        run.write({**pairs_side(model, folder, s), **reward_side(model, folder, s)})
