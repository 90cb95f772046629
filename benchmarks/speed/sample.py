"""Tokens a second of the OpenVINO sampler, against transformers' generate and against the raw engine.

One prompt a call, k completions of exactly 64 tokens each (the end token is switched off on every side), temperature
0.8, top-p 0.95, the same weights. Sides alternate; the median over the prompts counts.
  ours          trimtab.samplers.OpenVINO: a seed and log-probs for every completion
  raw           the same loaded pipeline, generate() with num_return_sequences = k and no log-probs
  transformers  generate() with num_return_sequences = k, in bfloat16 and in float32
`ratio` is ours over bfloat16, `ratio_float32` ours over float32, `ratio_raw` ours over raw: each the worst over k.
On a CPU without bfloat16 instructions bfloat16 is emulated, so float32 is then the harder peer. --small: k = 16,
16 tokens.
"""

import dataclasses
import statistics
import time

import numpy as np
import torch

from benchmarks.run import Run
from trimtab.lm.chat import encode_prompt
from trimtab.lm.load import load_lm
from trimtab.samplers import OpenVINO
from trimtab.samplers import openvino as engine_room
from trimtab.types import Prompt, SamplingParams

SETTINGS = {"model": "smollm2-135m", "ks": ("16", "48"), "new_tokens": 64, "rounds": 3}
SMALL = {"ks": ("16",), "new_tokens": 16, "rounds": 1}


def prompts() -> list[Prompt]:
    text = "{} children wait: write a short and clear story about a lost boat, with a surprise and a calm ending."
    return [Prompt(str(n), ({"role": "user", "content": text.format(n)},)) for n in range(10, 99)]


def main(run: Run) -> None:
    import openvino as ov
    import openvino_genai as genai
    from transformers.utils.logging import disable_progress_bar

    model, tokens_each, ks = run.settings.model, run.settings.new_tokens, [int(k) for k in run.settings.ks]
    disable_progress_bar()
    sampler = OpenVINO(model)
    engine = engine_room._engine(model, sampler.max_seqs, sampler.cache_gb, sampler.threads, sampler.device)
    endless = dataclasses.replace(engine, ends=frozenset())
    engine_room._engine = lambda *_: endless  # the sampler has no switch to ignore the end token
    params = SamplingParams(0.8, 0.95, 0, tokens_each, (), 1)
    peers = {"bfloat16": load_lm(model, dtype="bfloat16"), "float32": load_lm(model, dtype="float32")}
    tokenizer = peers["float32"].tokenizer

    def ours(prompt: Prompt, k: int) -> int:
        (group,) = sampler([prompt], k, params)
        return sum(len(c.tokens or ()) for c in group.completions)

    def raw(prompt: Prompt, k: int) -> int:
        config = genai.GenerationConfig(
            max_new_tokens=tokens_each, do_sample=True, temperature=0.8, top_p=0.95, top_k=2**31 - 1,
            num_return_sequences=k, ignore_eos=True,
        )  # fmt: skip
        ids = ov.Tensor(np.array([encode_prompt(tokenizer, prompt)], dtype=np.int64))
        (result,) = engine.pipeline.generate([ids], [config])
        return sum(map(len, result.m_generation_ids))

    def transformers(dtype: str):
        def generate(prompt: Prompt, k: int) -> int:
            ids = torch.tensor([encode_prompt(tokenizer, prompt)])
            with torch.inference_mode():
                out = peers[dtype].model.generate(
                    ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.8, top_p=0.95, top_k=0,
                    min_new_tokens=tokens_each, max_new_tokens=tokens_each, num_return_sequences=k,
                )  # fmt: skip
            return (out.shape[1] - ids.shape[1]) * out.shape[0]

        return generate

    sides = {"ours": ours, "raw": raw, **{d: transformers(d) for d in peers}}
    speed = {(side, k): [] for side in sides for k in ks}
    unused = iter(prompts())
    for side in ("ours", "raw"):
        sides[side](next(unused), 4)  # buffers and threads are made on the first call
    for k in ks:
        for _ in range(run.settings.rounds):
            for side, way in sides.items():
                # a prompt of its own, so that no side finds another's in a prefix cache
                prompt = next(unused)
                begun = time.perf_counter()
                tokens = way(prompt, k)
                speed[side, k].append(tokens / (time.perf_counter() - begun))
                assert tokens == k * tokens_each, (side, tokens)

    def worst(peer: str) -> float:
        return min(statistics.median(speed["ours", k]) / statistics.median(speed[peer, k]) for k in ks)

    run.write({
        "ratio": round(worst("bfloat16"), 2), "ratio_float32": round(worst("float32"), 2),
        "ratio_raw": round(worst("raw"), 3),
        "tokens_per_s": {f"{side} k={k}": round(statistics.median(v), 1) for (side, k), v in speed.items()},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    })  # fmt: skip
