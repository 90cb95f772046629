"""Likelihood beam search, 5 beams, SmolLM2-135M in float32: ours against transformers' generate with length_penalty=0.

Prompts of about 200 tokens, 64 new tokens. Peers on the same prompts: `generate` on one prompt at a time and on a batch
of 4 (left-padded), as one would; ours the same way. They alternate. `ratio` is their time over ours, the lower of the
two ways, `ratios_cpu_time` the same in processor time (fairer when others use the machine); `worst_gap` the smallest
difference of Σ log π (ours − theirs, must not be below −0.001), both recomputed by one plain forward. The length under
`length_penalty=1.0` (transformers' default) is shown beside, since it is not the same objective.
--small: 2 prompts, 24 tokens.
"""

import random
import statistics
import time
from functools import partial

import torch

from benchmarks.run import Run
from trimtab.decoders import BeamSearch, Plain
from trimtab.lm.chat import encode_prompt
from trimtab.lm.load import load_lm
from trimtab.tensors import token_logprobs
from trimtab.types import Prompt, SamplingParams

SETTINGS = {"model": "smollm2-135m", "prompts": 8, "new_tokens": 64, "beams": 5, "batch": 4, "rounds": 3}
SMALL = {"prompts": 2, "new_tokens": 24, "batch": 2, "rounds": 1}
TOPICS = ("a lost key", "the tide", "two brothers", "a slow train", "bread", "an old map", "winter", "the night market")


def prompts(count: int) -> list[Prompt]:
    rng = random.Random(0)
    out = []
    for topic in TOPICS[:count]:
        filler = " ".join(rng.choice(["It", "rained", "and", "the", "people", "waited", "there."]) for _ in range(165))
        content = f"{filler}\nContinue this story about {topic} in one sentence."
        out.append(Prompt(topic, ({"role": "user", "content": content},)))
    return out


@torch.inference_mode()
def theirs(lm, rows: list[list[int]], length_penalty: float, s) -> list[list[int]]:
    width = max(map(len, rows))
    pad = lm.tokenizer.pad_token_id or 0
    ids = torch.tensor([[pad] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    found = lm.model.generate(
        ids, attention_mask=mask, num_beams=s.beams, length_penalty=length_penalty, do_sample=False,
        max_new_tokens=s.new_tokens, pad_token_id=pad,
    )[:, width:].tolist()  # fmt: skip
    end = lm.model.generation_config.eos_token_id
    ends = {end} if isinstance(end, int) else set(end)
    return [r[: next((i + 1 for i, t in enumerate(r) if t in ends), len(r))] for r in found]


@torch.inference_mode()
def log_likelihood(lm, prompt: list[int], completion: list[int]) -> float:
    ids = torch.tensor([[*prompt, *completion]])
    return token_logprobs(lm.model(ids).logits, ids)[0, len(prompt) - 1 :].sum().item()


def timed(work) -> tuple[float, float, list]:
    begun, used = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - begun, time.process_time() - used, result


def main(run: Run) -> None:
    s = run.settings
    lm = load_lm(s.model, "float32")
    asked = prompts(s.prompts)
    rows = [encode_prompt(lm.tokenizer, p) for p in asked]
    times: dict[str, list[float]] = {}
    cpu_times: dict[str, list[float]] = {}
    answers: dict[str, list[list[int]]] = {}
    for way, batch in (("single", 1), (f"batch_{s.batch}", s.batch)):
        beams = Plain(BeamSearch(lm, width=s.beams, require_end=False, batch=batch))
        search = partial(beams, params=SamplingParams(max_tokens=s.new_tokens))
        parts = [range(i, min(i + batch, len(rows))) for i in range(0, len(rows), batch)]
        works = {
            "ours": lambda x=search: [list(a.completion.tokens or ()) for a in x(asked)],
            "generate": lambda ps=parts: [x for p in ps for x in theirs(lm, [rows[i] for i in p], 0.0, s)],
        }
        search(asked[:1])  # both warm up on one prompt
        theirs(lm, rows[:1], 0.0, s)
        for _ in range(s.rounds):
            for side, work in works.items():
                spent, used, found = timed(work)
                times.setdefault(f"{side}_{way}", []).append(spent)
                cpu_times.setdefault(f"{side}_{way}", []).append(used)
                answers[f"{side}_{way}"] = found
                print(side, way, round(spent, 2), flush=True)
    ratios, cpu_ratios = (
        {
            way: statistics.median(t[f"generate_{way}"]) / statistics.median(t[f"ours_{way}"])
            for way in ("single", f"batch_{s.batch}")
        }
        for t in (times, cpu_times)
    )
    value = {k: [log_likelihood(lm, p, c) for p, c in zip(rows, v, strict=True)] for k, v in answers.items()}
    gaps = [a - b for way in ratios for a, b in zip(value[f"ours_{way}"], value[f"generate_{way}"], strict=True)]
    default = theirs(lm, rows[:2], 1.0, s)
    figures = {
        "ratio": round(min(ratios.values()), 3), "ratios": {k: round(v, 3) for k, v in ratios.items()},
        "ratios_cpu_time": {k: round(v, 3) for k, v in cpu_ratios.items()},
        "worst_gap": round(min(gaps), 5), "best_gap": round(max(gaps), 3),
        "seconds": {k: round(statistics.median(v), 3) for k, v in times.items()},
        "mean_length": statistics.mean(map(len, answers["ours_single"])),
        "mean_length_penalty_1": statistics.mean(map(len, default)), "prompt_tokens": statistics.mean(map(len, rows)),
    }  # fmt: skip
    run.write(figures)
