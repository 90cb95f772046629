"""Hidden states of 16 completions a prompt: our prefix forests against one forward pass a completion, in float32.

Prompts are 60 tokens in the model's chat template. Two sets of answers, 6 to 30 tokens each:
  distinct   random tokens: the completions share nothing but their prompt (the worst case; `ratio` is this one)
  answers    sums written out as a model does, some alike (`ratio_answers`)
Peers, alternating with ours: `plain` = the model called once a completion with output_hidden_states, head included, as
the method's own scripts do; `body` = the same without the head; `batched` = the body on all 16 at once, right-padded.
Ratios are time of the peer over time of ours. --small: SmolLM2-135M, one group.
`share_of_sampling` is what the vectors of the demo's shape (16 answers of at most 32 tokens a prompt, layers 16 and 20)
cost beside sampling them by OpenVINO, in processor time: read while sampling; `_after`, by the sampler's graph on
forests; `_torch`, by torch in the machine's own precision. `states_difference` is from torch's float32 (median, worst).
"""

import random
import resource
import time

import numpy as np
import torch

from benchmarks.run import Run
from trimtab.embeddings import GraphStates, HiddenStates
from trimtab.lm.chat import encode_prompt
from trimtab.lm.load import load_lm
from trimtab.samplers import OpenVINO
from trimtab.types import Completion, Group, Prompt, SamplingParams

SETTINGS = {"model": "qwen2.5-coder-0.5b", "groups": 2, "sampled": 20, "rounds": 2}
SMALL = {"model": "smollm2-135m", "groups": 1, "sampled": 4, "rounds": 1}
LAYER, K, PROMPT_TOKENS = 20, 16, 60


def prompt_of(lm, number: int, rng: random.Random) -> tuple[Prompt, str]:
    """A sum, padded with words until the whole prompt is 60 tokens, and its text."""
    total = f"{rng.randint(10, 99)} + {rng.randint(10, 99)} - {rng.randint(1, 9)}"
    content = f"State the final answer to the following arithmetic problem: {total} ="
    while True:
        p = Prompt(f"p{number}", ({"role": "user", "content": content},))
        if len(encode_prompt(lm.tokenizer, p)) >= PROMPT_TOKENS:
            return p, total
        content += rng.choice([" please", " now", " and", " show", " the", " steps", " so"])


def answers_of(lm, total: str, rng: random.Random, *, distinct: bool) -> list[list[int]]:
    size = len(lm.tokenizer) - 10
    if distinct:
        return [[rng.randrange(size) for _ in range(rng.randint(6, 30))] for _ in range(K)]
    value = eval(total)  # two digits and signs, made above
    texts = []
    for _ in range(K):
        guess = value + rng.choice([0, 0, 1, -10, 10, 2])
        texts.append(
            rng.choice(
                [f"{total} = {guess}", f"The answer is {guess}.", f"First, {total[:7]} = {guess + 3}, so {guess}."]
            )
        )
    end = lm.tokenizer.eos_token_id
    return [[*lm.tokenizer(t, add_special_tokens=False)["input_ids"][:29], end] for t in texts]


def make_groups(lm, count: int, *, distinct: bool) -> list[Group]:
    rng = random.Random(0)
    groups = []
    for number in range(count):
        p, total = prompt_of(lm, number, rng)
        rows = answers_of(lm, total, rng, distinct=distinct)
        groups.append(Group(p, tuple(Completion("", lm.id, i, i, tokens=tuple(r)) for i, r in enumerate(rows))))
    return groups


def rows_of(lm, group: Group) -> list[list[int]]:
    start = encode_prompt(lm.tokenizer, group.prompt)
    return [start + list(c.tokens or ()) for c in group.completions]


@torch.inference_mode()
def one_each(lm, group: Group, *, head: bool) -> np.ndarray:
    out = []
    for ids in rows_of(lm, group):
        model = lm.model if head else lm.model.get_decoder()
        states = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
        out.append(states[LAYER][0, -1].numpy().copy())
    return np.stack(out)


@torch.inference_mode()
def batched(lm, group: Group) -> np.ndarray:
    from trimtab.tensors import pad_right

    rows = rows_of(lm, group)
    ids, mask = pad_right(rows, lm.tokenizer.pad_token_id)
    states = lm.model.get_decoder()(ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
    return np.stack([states[LAYER][i, len(r) - 1].numpy() for i, r in enumerate(rows)])


def measure(lm, groups: list[Group]) -> dict[str, float]:
    embed = HiddenStates(lm, layers=(LAYER,))
    embed(groups[:1])  # warm
    seconds = dict.fromkeys(("ours", "plain", "body", "batched"), 0.0)
    worst = 0.0
    peers = {
        "ours": embed,
        "plain": lambda block: [one_each(lm, g, head=True) for g in block],
        "body": lambda block: [one_each(lm, g, head=False) for g in block],
        "batched": lambda block: [batched(lm, g) for g in block],
    }
    ours = []
    for i in range(0, len(groups), 2):  # alternating, so that other load on the machine falls on all of them
        block = groups[i : i + 2]
        for name, run in peers.items():
            begun = time.perf_counter()
            got = run(block)
            seconds[name] += time.perf_counter() - begun
            if name == "ours":
                ours = got
            for a, b in zip(ours, got, strict=True):
                worst = max(worst, float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max()))
    return {**seconds, "difference": worst, "completions": len(groups) * K}


def beside_sampling(lm, model: str, count: int, rounds: int) -> dict[str, float | list[float]]:
    """Processor time of vectors over that of sampling alone, and how far the vectors are from torch's in float32."""
    rng, layers = random.Random(1), (16, 20)
    prompts = [prompt_of(lm, number, rng)[0] for number in range(count)]
    params = SamplingParams(temperature=0.8, top_p=1.0, max_tokens=32)
    read: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}

    def take(name: str, work):
        begun = time.process_time()
        out = work()
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - begun
        return out

    def keep(group: Group, states) -> None:
        read[group.prompt.id] = np.concatenate(list(states.values()), axis=1)

    groups = []
    graph, torch_ = GraphStates(model, layers, "text"), HiddenStates(model, layers, "text")
    for name in ("sampling", "reading") * rounds:
        sampler = OpenVINO(model, layers=layers, keep=keep) if name == "reading" else OpenVINO(model)
        sampler(prompts[:1], 1, SamplingParams(max_tokens=1))  # loads it
        groups = take(name, lambda s=sampler: s(prompts, K, params))
    for name, embed in (("after", graph), ("torch", torch_)):
        embed(groups[:1])
        for _ in range(rounds):
            take(name, lambda e=embed: e(groups))
    off = []
    for group, want in zip(groups, HiddenStates(lm, layers, "text")(groups), strict=True):
        for a, b in zip(np.split(read[group.prompt.id], 2, axis=1), np.split(want, 2, axis=1), strict=True):
            off += list(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1))
    alone = seconds["sampling"]
    return {
        "share_of_sampling": round(seconds["reading"] / alone - 1, 3),
        "share_of_sampling_after": round(seconds["after"] / alone, 3),
        "share_of_sampling_torch": round(seconds["torch"] / alone, 3),
        "states_difference": [float(f"{x:.2g}") for x in (np.median(off), max(off))],
        "states_dtype": graph.card["dtype"],
    }


def main(run: Run) -> None:
    s = run.settings
    lm = load_lm(s.model, "float32")
    ways = ("distinct", "answers")
    found = {name: measure(lm, make_groups(lm, s.groups, distinct=name == "distinct")) for name in ways}
    for name, f in found.items():
        rates = ", ".join(f"{x} {f['completions'] / f[x]:.1f}" for x in ("ours", "plain", "body", "batched"))
        print(f"{name}: completions/s: {rates}; largest relative difference {f['difference']:.1e}")
    d, a = found["distinct"], found["answers"]
    figures = {
        "ratio": round(d["plain"] / d["ours"], 2),
        "ratio_answers": round(a["plain"] / a["ours"], 2),
        "ratio_without_head": round(d["body"] / d["ours"], 2),
        "ratio_batched": round(d["batched"] / d["ours"], 2),
        "max_relative_difference": max(d["difference"], a["difference"]),
        "completions_per_s": round(d["completions"] / d["ours"], 1),
        "completions_per_s_answers": round(a["completions"] / a["ours"], 1),
        **beside_sampling(lm, s.model, s.sampled, s.rounds),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    run.write(figures)
