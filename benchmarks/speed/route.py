"""Decision latency: prompt text in, chosen model out, at 20, 200, 1,000 and 4,000 tokens, concurrency 1 and 10.

Ours: a fitted `tags` router on hashed n-grams (no window: every token is read), text to choice. Peers: the local
encoders that LLMRouter 0.4 (Longformer-base-4096, mean pooling) and RouteLLM 0.2 (its `bert` router, BERT-base, cut at
512 tokens; its other routers call OpenAI for embeddings) run in process. Their weights are out of reach, so the same
architectures are built from their configs with random weights, float32, defaults of transformers: the arithmetic is the
same. Their tokenizers are not timed (in their favour). Same threads for all. Last line: p50_ms_1000 (ours, one at a
time) and ratio (LLMRouter's p50 over ours, 1,000 tokens).
"""

import threading
import time

import numpy as np

from benchmarks import results
from benchmarks.run import Run
from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.embeddings.ngrams import HashedNgrams
from trimtab.learners.model.router import fit_router
from trimtab.types import Prompt

SETTINGS = {"seconds": 3.0, "peer_seconds": 3.0, "every_peer": True}
SMALL = {"seconds": 1.0, "peer_seconds": 0.5, "every_peer": False}  # peers: not at concurrency 10, not at 4,000 tokens
LENGTHS = (20, 200, 1000, 4000)
WORDS = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which
one you were all her she there would their we him been has when who will no more if out so up said what its
about than into them can only other time new some could these two may first then do any like my now over such
our man me even most made after also well many must before back through years where much your way down should
because long each function return list number string python calculate value equation question answer following
""".split()  # noqa: SIM905


def text(tokens: int, seed: int) -> str:
    """About `tokens` word pieces: common English words, one piece each, with full stops and digits among them."""
    rng = np.random.default_rng(seed)
    words = rng.choice(WORDS, tokens)
    words[9::10] = [f"{w}." for w in words[9::10]]
    return " ".join(words[: max(1, round(tokens / 1.1))])


def our_router(P: int = 1300, M: int = 9, T: int = 13):
    """A router of router9's size: 13 tags, 9 models."""
    rng = np.random.default_rng(0)
    tag = rng.integers(0, T, P)
    texts = [f"{' '.join(rng.choice(WORDS[t * 8 : t * 8 + 8], 12))} {text(30, i)}" for i, t in enumerate(tag)]
    prompts = tuple(Prompt(str(i), ({"role": "user", "content": t},)) for i, t in enumerate(texts))
    hard = np.array([len(t) % 3 for t in texts])
    reward = rng.random((T, M))[tag] + 0.3 * (hard[:, None] == np.arange(M) % 3) + 0.1 * rng.random((P, M))
    matrix = ResponseMatrix(prompts, tuple(f"m{i}" for i in range(M)), reward, tuple((f"t{t}",) for t in tag))
    return fit_router(matrix, HashedNgrams(), guard=False)


def peers() -> dict:
    import torch
    from transformers import BertConfig, BertModel, LongformerConfig, LongformerModel

    longformer = LongformerModel(
        LongformerConfig(vocab_size=50265, max_position_embeddings=4098, type_vocab_size=1, attention_window=[512] * 12)
    ).eval()
    bert = BertModel(BertConfig()).eval()

    def llmrouter(ids: np.ndarray) -> None:
        with torch.no_grad():
            batch = torch.tensor(ids[None, :4096])
            states = longformer(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
            states.mean(1)

    def routellm(ids: np.ndarray) -> None:
        with torch.no_grad():
            bert(input_ids=torch.tensor(ids[None, :512] % 30000))

    return {"LLMRouter Longformer-base-4096": llmrouter, "RouteLLM BERT-base (512)": routellm}


def latencies(decide, inputs: list, concurrency: int, seconds: float, least: int) -> np.ndarray:
    """Milliseconds of each decision in a closed loop of `concurrency` threads, after one warm-up."""
    decide(inputs[0])
    times: list[float] = []
    end = time.perf_counter() + seconds

    def loop(worker: int) -> None:
        done = 0
        while time.perf_counter() < end or done < max(1, least // concurrency):
            start = time.perf_counter()
            decide(inputs[(worker + done) % len(inputs)])
            times.append(1e3 * (time.perf_counter() - start))
            done += 1

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(concurrency)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return np.array(times)


def main(run: Run) -> None:
    s = run.settings
    router = our_router()
    rows = []
    p50: dict[tuple[str, int, int], float] = {}
    ways: dict = {"trimtab tags, n-grams": lambda p: max((r := router([p])[0]), key=r.__getitem__), **peers()}
    for name, decide in ways.items():
        ours = name.startswith("trimtab")
        for tokens in LENGTHS:
            for concurrency in (1, 10):
                if not (s.every_peer or ours) and (concurrency == 10 or tokens == 4000):
                    continue
                if ours:
                    texts = [text(tokens, i) for i in range(20)]
                    inputs = [Prompt(str(i), ({"role": "user", "content": t},)) for i, t in enumerate(texts)]
                else:
                    inputs = [np.random.default_rng(i).integers(5, 30000, tokens) for i in range(4)]
                seconds, least = (s.seconds, 50) if ours else (s.peer_seconds, 5)
                ms = latencies(decide, inputs, concurrency, seconds, least)
                q = np.quantile(ms, [0.5, 0.95, 0.99])
                p50[name, tokens, concurrency] = float(q[0])
                rows.append({"router": name, "tokens": tokens, "concurrency": concurrency, "n": len(ms),
                             "p50_ms": float(q[0]), "p95_ms": float(q[1]), "p99_ms": float(q[2])})  # fmt: skip
                said = "  ".join(f"p{p} {v:9.2f}" for p, v in zip((50, 95, 99), q, strict=True))
                print(f"{name:32} {tokens:5} tokens, C={concurrency:2}: {said} ms  (n = {len(ms)})", flush=True)
    mine = p50["trimtab tags, n-grams", 1000, 1]
    figures = {
        "p50_ms_1000": mine,
        "ratio": p50["LLMRouter Longformer-base-4096", 1000, 1] / mine,
        "ratio_routellm": p50["RouteLLM BERT-base (512)", 1000, 1] / mine,
    }
    if (results.FOLDER / "router9.json").is_file():  # what the fast encoder costs in quality, as router9 measured it
        measured = results.read("router9")["figures"]
        figures |= {"gap_fast": measured["gap_fast"], "gap_with_minilm": measured["gap"]}
    run.write(figures, rows)
