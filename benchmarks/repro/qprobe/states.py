"""Stored MBPP completions to everything the rerankers may look at, in one pass: states, log-probs, P(yes).

For each completion, from Qwen2.5-Coder-0.5B in float32: hidden states of LAYERS at the last text token, after the
closing fence, averaged over the answer, averaged with each token's surprise as its weight, and at the end of the
question "is it right?" put behind the answer (the prompt RM's place); log-prob, entropy and whether it was the most
likely one for every token; log P(yes) - log P(no). Shards are written as they are done and a second start goes on.

    python -m benchmarks.repro.qprobe.states --samples samples_qwen05.jsonl.gz --out FOLDER [--shard 0/2]
"""

import argparse
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = (8, 12, 14, 16, 18, 20, 22, 24)
POOLS = ("text", "last", "mean", "surprise", "asked")
MODEL = "qwen2.5-coder-0.5b"
FENCE = "\n```"
QUESTION = "<|im_end|>\n<|im_start|>user\nIs it right? Answer yes or no.<|im_end|>\n<|im_start|>assistant\n"
LONGEST = 198  # completions this long were cut by the sampler and never closed their block


def load_samples(path: str) -> list[dict[str, Any]]:
    """Rows {task_id, prompt, completions, tests, setup, ...} of the stored samples."""
    with gzip.open(path, "rt") as f:
        return [json.loads(line) for line in f]


def jobs_of(rows: list[dict[str, Any]], half: int = 8) -> list[tuple[int, int, int]]:
    """(row, a, b): places a..b of each prompt's own shuffled order of completions, all prompts' first `half` first."""
    n = max(len(r["completions"]) for r in rows)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()  # what is there when it is stopped is a fair draw
    return [(i, a, min(a + half, n)) for a in range(0, n, half) for i in order]


def shuffled(row: dict[str, Any]) -> list[int]:
    """The order in which a prompt's completions are taken.

    The engine that wrote the samples returned each prompt's sorted by summed log-prob (0.37 of the first are right and
    0.22 of the last), so the first eight as they lie would be the better half, and the index itself would be a feature.
    """
    return np.random.default_rng(row["task_id"]).permutation(len(row["completions"])).tolist()


def run_job(lm: Any, row: dict[str, Any], a: int, b: int, batch_tokens: int) -> dict[str, np.ndarray]:
    """All features of completions a..b of one prompt; arrays have one entry (or row) a completion."""
    import torch

    from trimtab.lm.forward import FINAL_NORM, forest_states, pack

    tok = lm.tokenizer
    encode = lambda text: tok.encode(text, add_special_tokens=False)  # noqa: E731
    prompt, closing, question = encode(row["prompt"]), encode(FENCE), encode(QUESTION)
    yes, no = ([encode(w)[0] for w in ws] for ws in (("Yes", "yes"), ("No", "no")))
    index = shuffled(row)[a:b]
    texts = [encode(row["completions"][i]) for i in index]
    ended = [len(t) < LONGEST for t in texts]
    seqs = [prompt + t + (closing if e else []) + question for t, e in zip(texts, ended, strict=True)]
    width = lm.model.config.hidden_size
    out: dict[str, Any] = {f"layer{L}.{p}": np.zeros((b - a, width), np.float16) for L in LAYERS for p in POOLS}
    out |= {"yes": np.zeros(b - a, np.float32), "ended": np.array(ended)}
    tokens: dict[str, list[np.ndarray]] = {"logprob": [np.empty(0)] * (b - a), "entropy": [np.empty(0)] * (b - a)}
    tokens["top"] = [np.empty(0)] * (b - a)
    for forest in pack(lm, seqs, batch_tokens):
        with torch.inference_mode():
            states = forest_states(lm, forest, [*LAYERS, FINAL_NORM])
            final_TD = states[FINAL_NORM]
            want = np.unique(np.concatenate([p[len(prompt) : len(p) - len(question)] for _, p in forest.paths]))
            value = {k: np.zeros(len(forest.token_T), np.float32) for k in tokens}
            for nodes in np.split(want, range(256, len(want), 256)):
                logp_BV = lm.model.lm_head(final_TD[torch.from_numpy(forest.parent_T[nodes])]).float().log_softmax(-1)
                target_B = torch.from_numpy(forest.token_T[nodes])
                value["logprob"][nodes] = logp_BV.gather(1, target_B[:, None])[:, 0].numpy()
                value["entropy"][nodes] = -(logp_BV.exp() * logp_BV).sum(-1).numpy()
                value["top"][nodes] = (logp_BV.argmax(-1) == target_B).numpy()
            ends = torch.from_numpy(np.array([p[-1] for _, p in forest.paths]))
            asked_BV = lm.model.lm_head(final_TD[ends]).float().log_softmax(-1)
        for place, (number, path) in enumerate(forest.paths):
            answer = path[len(prompt) : len(path) - len(question)]
            text_end = path[len(prompt) + len(texts[number]) - 1]
            for k in tokens:
                tokens[k][number] = value[k][answer]
            weight = torch.from_numpy(-value["logprob"][answer] + 1e-3)
            for L in LAYERS:
                state = states[L].float()
                span = state[torch.from_numpy(answer)] if len(answer) else state[path[len(prompt) - 1]][None]
                out[f"layer{L}.text"][number] = state[text_end].numpy()
                out[f"layer{L}.last"][number] = span[-1].numpy()
                out[f"layer{L}.mean"][number] = span.mean(0).numpy()
                out[f"layer{L}.surprise"][number] = (
                    ((span * weight[:, None]).sum(0) / weight.sum()).numpy() if len(answer) else span[-1].numpy()
                )
                out[f"layer{L}.asked"][number] = state[path[-1]].numpy()
            logit = asked_BV[place]
            out["yes"][number] = float(logit[yes].logsumexp(0) - logit[no].logsumexp(0))
    out["index"] = np.array(index)
    out["lengths"] = np.array([len(x) for x in tokens["logprob"]])
    out["text_lengths"] = np.array([len(t) for t in texts])
    return out | {k: np.concatenate(v).astype(np.float32) for k, v in tokens.items()}


def main() -> None:
    """Computes what the cache lacks, a file a job; --shard i/n does every n-th job, so that several can run at once."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--batch-tokens", type=int, default=1536)
    parser.add_argument("--limit", type=int, default=10**9, help="jobs of this call")
    parser.add_argument("--completions", type=int, default=0, help="only the first so many of each prompt")
    parser.add_argument(
        "--dtype", default="float32", help="of the forward pass: float32, or bfloat16 (faster, coarser)"
    )
    args = parser.parse_args()
    from trimtab.lm.load import load_lm

    rows, out = load_samples(args.samples), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    mine, of = map(int, args.shard.split("/"))
    todo = [j for n, j in enumerate(jobs_of(rows)) if n % of == mine]
    if args.completions:
        todo = [j for j in todo if j[2] <= args.completions]
    lm, start, done = load_lm(MODEL, args.dtype), time.time(), 0
    for i, a, b in todo:
        path = out / f"{rows[i]['task_id']}-{a:02d}.npz"
        if path.exists():
            continue
        found = run_job(lm, rows[i], a, b, args.batch_tokens)
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez(temporary, **found)
        temporary.rename(path)
        done += 1
        if done >= args.limit:
            break
        if done % 10 == 0:
            print(f"{done} jobs, {(time.time() - start) / done:.1f} s each", flush=True)
    print(f"{done} jobs done", flush=True)


if __name__ == "__main__":
    main()
