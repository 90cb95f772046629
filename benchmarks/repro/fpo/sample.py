"""Samples of the starting model for the repeat of FPO: groups for training pairs, for held-out pairs, and the baseline.

    python benchmarks/repro/fpo/sample.py FOLDER

Continues where it was stopped; `run.py` reads what this leaves.
"""

import sys
from pathlib import Path

from task import prompts, sentiment

from trimtab.samplers.hf import HF
from trimtab.store import Store
from trimtab.types import Reward, SamplingParams

MODEL = "smollm2-135m"
PARAMS = SamplingParams(temperature=0.8, top_p=1.0, max_tokens=16, seed=1)
TRAIN, TEST, N = 144, 64, 6


def main(folder: str) -> None:
    store = Store(Path(folder) / "samples")
    sampler = HF(MODEL, batch=48, dtype="float32")
    store.add_prompts(prompts(TRAIN), "train", {"task": "sst2 prefixes"})
    store.add_prompts(prompts(TEST, skip=TRAIN), "test", {"task": "sst2 prefixes"})
    for split in ("train", "test"):
        settings = {"model": sampler.model, "params": PARAMS, "n": N}
        with store.writer(f"completions/{split}", settings, flush_s=0.0) as writer:
            have = {r["prompt_id"] for r in store.read(f"completions/{split}").to_pylist()}
            todo = [p for p in store.prompts(split) if p.id not in have]
            for i in range(0, len(todo), 8):
                groups = sampler(todo[i : i + 8], N, PARAMS)
                writer.append_groups(groups)
                writer.flush()
                print(f"{split}: {i + len(groups)} of {len(todo)}", flush=True)


def scored(folder: str, split: str):
    """Stored groups with the oracle's rewards."""
    from dataclasses import replace

    groups = Store(Path(folder) / "samples").groups(split)
    return [
        replace(g, rewards=tuple(Reward(r.value) for r in rs)) for g, rs in zip(groups, sentiment(groups), strict=True)
    ]


if __name__ == "__main__":
    main(sys.argv[1])
