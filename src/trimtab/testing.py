"""Public test tools: samplers and models made in code, and the contract checks that every built-in passes.

Run them on your own sampler, reward, router: `check_sampler(MySampler(...))`.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.types import (
    Completion,
    Group,
    Preference,
    Prompt,
    RewardFn,
    Router,
    Sampler,
    SamplingParams,
    completion_seed,
)


@dataclass(frozen=True)
class FakeSampler:
    """A sampler without a model: completion i of a prompt is `answer(prompt, rng)`; greedy uses a fixed rng.

    Same seed, same text. Gives log-probs drawn from the same rng, one a word.
    """

    answer: Callable[[Prompt, np.random.Generator], str]
    model: str = "fake@0"

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        return [Group(p, tuple(self._one(p, i, params) for i in range(n))) for p in prompts]

    def _one(self, prompt: Prompt, index: int, params: SamplingParams) -> Completion:
        seed = completion_seed(params.seed, prompt.id, 0 if params.temperature == 0 else index)
        rng = np.random.default_rng(seed)
        text = self.answer(prompt, rng)
        logprobs = tuple(float(np.float32(-rng.exponential())) for _ in range(len(text.split()) + 1))
        return Completion(text, self.model, seed, index, "stop", None, logprobs)


CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_lm(folder: str | Path, *, layers: int = 3, hidden: int = 32, seed: int = 0, context: int = 512) -> Path:
    """Writes a random Llama with a byte-level tokenizer and a chat template to `folder`; returns it. Needs torch.

    Vocabulary: 256 bytes, then <|pad|>, <|end|> (EOS), <|user|>, <|assistant|>, <|system|>. No BOS.
    """
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = Path(folder)
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=CHAT_TEMPLATE,  # noqa: S106
    )  # fmt: skip
    config = LlamaConfig(
        vocab_size=len(vocab) + len(special), hidden_size=hidden, intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context, tie_word_embeddings=True,
        pad_token_id=len(vocab), eos_token_id=len(vocab) + 1, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        for p in model.parameters():  # the default initialisation is so small that every layer is nearly the identity
            torch.nn.init.normal_(p, std=0.2) if p.dim() > 1 else torch.nn.init.uniform_(p, 0.5, 1.5)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def prompt(text: str, target: object = None, id: str = "") -> Prompt:
    """A one-message prompt whose id is the text when none is given."""
    return Prompt(id or text, ({"role": "user", "content": text},), target)


@dataclass(frozen=True)
class Asked:
    """One request that a scripted server got; `at` is a monotonic clock's."""

    path: str
    body: Any
    headers: Mapping[str, str]
    at: float


@contextmanager
def scripted_server(answer: Callable[[int, Asked], tuple[int, Mapping[str, str], Any]]) -> Iterator[tuple[str, list]]:
    """A server on a free port of loopback: (its URL with /v1, the list of what it was asked).

    `answer(number, asked)`, numbered from 1, gives status, headers and the body: bytes, text, or anything for JSON.
    """
    seen: list[Asked] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or every second answer waits 40 ms

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            asked = Asked(self.path, json.loads(raw or b"null"), dict(self.headers), time.monotonic())
            with lock:
                seen.append(asked)
                number = len(seen)
            status, headers, reply = answer(number, asked)
            reply = reply if isinstance(reply, bytes | str) else json.dumps(reply)
            data = reply.encode() if isinstance(reply, str) else reply
            try:
                self.send_response(status)
                for name, value in {"content-length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client had enough

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def check_sampler(sampler: Sampler, prompts: Sequence[Prompt] | None = None, *, seeded: bool = True) -> None:
    """Exactly n completions in order; same seed same text (`seeded`), another seed another text; `finish` truthful;
    log-probs finite, non-positive and as many as the tokens; n samples of a prompt are not all one text."""
    prompts = prompts or [prompt("Count from one to ten."), prompt("Name a colour and a fruit.")]
    params = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=12, seed=1)
    groups = sampler(prompts, 4, params)
    assert [g.prompt for g in groups] == list(prompts), "groups must come in the order of the prompts"
    for g in groups:
        assert [c.index for c in g.completions] == list(range(4)), "exactly n completions, indexed from 0"
        assert len({c.text for c in g.completions}) > 1, "n samples at temperature 1 came back identical"
        for c in g.completions:
            assert c.finish in ("stop", "length") and c.model == sampler.model
            if c.logprobs is not None:
                assert all(math.isfinite(x) and x <= 1e-6 for x in c.logprobs)
                assert c.tokens is None or len(c.tokens) == len(c.logprobs)
    texts = [[c.text for c in g.completions] for g in groups]
    if seeded:
        again = sampler(prompts, 4, params)
        assert [[c.text for c in g.completions] for g in again] == texts, "the same seed must give the same text"
        other = sampler(prompts, 4, SamplingParams(temperature=1.0, top_p=1.0, max_tokens=12, seed=2))
        assert [[c.text for c in g.completions] for g in other] != texts, "another seed must give another text"


def check_reward(reward: RewardFn, gold: Group, anti: Group, *, top: float = 1.0, bottom: float = 0.0) -> None:
    """Every gold completion earns `top`, every anti-gold one `bottom`; an empty batch is empty; the reward survives
    pickling (it must cross to worker processes)."""
    import pickle

    fn = pickle.loads(pickle.dumps(reward))  # noqa: S301
    for group, value in ((gold, top), (anti, bottom)):
        (rewards,) = fn([group])
        assert [r.value for r in rewards] == [value] * len(group.completions), rewards
    assert fn([]) == []


def check_learned_reward(reward: RewardFn, groups: Sequence[Group]) -> None:
    """A fitted reward gives one finite reward a completion, the same alone or in a batch, whatever the order."""
    values = [[r.value for r in rewards] for rewards in reward(groups)]
    assert [len(v) for v in values] == [len(g.completions) for g in groups]
    assert np.isfinite(np.concatenate([np.array(v, dtype=float) for v in values])).all()
    alone = [[r.value for r in reward([g])[0]] for g in groups]
    backwards = [[r.value for r in rewards] for rewards in reward(groups[::-1])][::-1]
    for a, b, c in zip(values, alone, backwards, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-5)


def check_router(router: Router, prompts: Sequence[Prompt], pool: Sequence[str]) -> None:
    """One row a prompt, a finite expected reward for exactly the models of the pool; the same alone, in a batch and in
    any order of the prompts; no prompts give no rows."""
    assert router([]) == [], "no prompts give no rows"
    rows = router(prompts)
    assert len(rows) == len(prompts), "one row a prompt"
    for row in rows:
        assert set(row) == set(pool), f"a row must name exactly the pool's models, not {sorted(row)}"
        assert np.isfinite(list(row.values())).all(), "expected rewards are finite"
    backwards = router(prompts[::-1])[::-1]
    for prompt_, row, back in zip(prompts, rows, backwards, strict=True):
        (alone,) = router([prompt_])
        for m in pool:
            assert abs(row[m] - alone[m]) < 1e-5, "a prompt's row must not depend on the batch"
            assert abs(row[m] - back[m]) < 1e-5, "a prompt's row must not depend on the order"


def check_preference(prefer: Preference, groups: Sequence[Group], *, decimals: int = 5) -> None:
    """A preference gives one probability a pair asked, the same alone or in a batch; swapping the two completions gives
    the complement, and a completion against itself one half. NaN (unread) must be NaN both ways."""
    asked = [np.array([[i, j] for i in range(n) for j in range(n)]) for n in (len(g.completions) for g in groups)]
    said = prefer(groups, asked)
    assert [p.shape for p in said] == [(len(a),) for a in asked]
    for g, a, p in zip(groups, asked, said, strict=True):
        matrix = p.reshape(len(g.completions), -1)
        known = matrix[np.isfinite(matrix)]
        assert ((known >= 0) & (known <= 1)).all()
        np.testing.assert_allclose(matrix + matrix.T, 1 + 0 * matrix, atol=10**-decimals)
        np.testing.assert_allclose(prefer([g], [a[:1]])[0], p[:1], atol=10**-decimals)
    assert prefer([], []) == []


def check_loss(loss: Callable) -> None:
    """A pair loss as `train_policy` takes it: one finite value a pair, rewards detached, finite gradients; at the
    reference it falls when the chosen becomes likelier and not when the rejected does; a batch is a loop."""
    import torch

    from trimtab.learners.token.step import loss_needs

    rng = torch.Generator().manual_seed(0)
    length = {s: (1 + 59 * torch.rand(5, generator=rng)).ceil().double() for s in ("chosen", "rejected")}
    known: dict = {}
    for side, length_B in length.items():
        logprob_B = -length_B * (0.1 + 2 * torch.rand(5, generator=rng).double())
        known |= {f"{side}_length_B": length_B, f"{side}_kl_B": torch.zeros(5).double()}
        known |= {f"{side}_logprob_B": logprob_B, f"ref_{side}_logprob_B": logprob_B.clone()}
    x = {n: known[n].clone().requires_grad_() for n in loss_needs(loss)}
    out = loss(**x)
    assert all(t.shape == (5,) and bool(t.isfinite().all()) for t in out), "one finite value a pair"
    assert not out.chosen_reward_B.requires_grad and not out.rejected_reward_B.requires_grad, "rewards are for reading"
    out.loss_B.sum().backward()
    assert bool((x["chosen_logprob_B"].grad < 0).all()), "the loss must fall when the chosen becomes likelier"
    if "rejected_logprob_B" in x:
        assert bool((x["rejected_logprob_B"].grad >= 0).all()), "a likelier rejected completion must not be rewarded"
    for i in range(5):
        alone = loss(**{n: v.detach()[i : i + 1] for n, v in x.items()})
        assert all(bool(torch.isclose(a[0], b[i])) for a, b in zip(alone, out, strict=True)), "a batch is a loop"


def write_jsonl(path: str | Path, rows: Sequence[dict]) -> Path:
    """Writes rows as JSON lines; returns the path."""
    Path(path).write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return Path(path)
