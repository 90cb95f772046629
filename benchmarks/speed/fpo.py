"""FPO against TDPO2 and against LN-DPO on SmolLM2-135M, float32, prompts and answers of about 100 tokens.

Four sides, each a process of its own on the same pairs in the same order: `fpo` (ours, an SAE 8 times as wide as the
hidden state, reference cached), `ln_dpo` (ours, reference cached: what FPO is without its leash), `tdpo2` (ours: the
reference live, KL in chunks of the vocabulary) and `tdpo2_plain` (TDPO2 as its authors and FPO's write it: a second
model, the full logits of both, log-softmax over the vocabulary, the same optimiser). A step is timed from its begin to
its end, memory is the peak resident set of the process.
`ratio` = FPO's tokens/s over `tdpo2_plain`'s and `memory_ratio` its peak over that side's; `ratio_ours` and
`memory_ratio_ours` the same against our own TDPO2; `ratio_ln_dpo`, `memory_ratio_ln_dpo` against LN-DPO;
`ratio_cpu_time...` are the same in processor time, fairer when others use the machine. Each side
counts prompt + chosen + prompt + rejected tokens, padding not included. With `lora=true` the results are fpo_lora's; on
a GPU (--device cuda dtype=bfloat16) the memory is the most that torch had allocated on it (see shape_2b.py for the
model), and the results are fpo_gpu's.
"""

import tempfile
from typing import Any

from benchmarks.run import Run
from benchmarks.speed import training

SETTINGS = {
    **training.SETTINGS, "batch": 8, "steps": 2, "rounds": 2, "lora": False, "layer": 26, "sae_width": 8 * 576,
    "sides": ("fpo", "tdpo2_plain", "ln_dpo", "tdpo2"), "least": 90, "most": 110,
}  # fmt: skip
SMALL = {"batch": 2, "steps": 1, "rounds": 1, "sides": ("fpo", "tdpo2_plain"), "least": 20, "most": 30}


def rows(s) -> training.Rows:
    return training.random_rows(s.batch * s.steps, (s.least, s.most), (s.least, s.most))


def ours(s, watch: training.Stopwatch, loss: str) -> dict[str, Any]:
    from trimtab.data.preference import pairs_from_rows
    from trimtab.learners.feature.leash import FeatureLeash
    from trimtab.learners.feature.sae import random_sae
    from trimtab.learners.token import trainer

    leash = FeatureLeash(random_sae(shape(s)), s.layer) if loss == "fpo" else None
    with tempfile.TemporaryDirectory() as folder:
        trainer.train_policy(
            pairs_from_rows(rows(s)), model=s.model, out=folder + "/run", loss=loss, leash=leash,
            lora=trainer.Lora() if s.lora else None, optim=trainer.Optim(1e-6, batch_size=s.batch, shuffle=False),
            compute=trainer.Compute(
                s.dtype, s.device, trainer={"save_strategy": "no"}, callbacks=[training.callback_of(watch)]
            ),
        )  # fmt: skip
    return {}


def shape(s) -> Any:
    """A TopK SAE of the right shape; its values do not matter for time and memory."""
    import torch
    from transformers import AutoConfig

    from trimtab.learners.feature.sae import SAE
    from trimtab.lm.catalog import locate

    D, F = AutoConfig.from_pretrained(locate(s.model, "torch")).hidden_size, s.sae_width
    ones = torch.full((D, F), 0.04)
    return SAE(ones, torch.zeros(F), ones.T.contiguous(), torch.zeros(D), "topk", None, 32, layer=s.layer)


def tdpo2_plain(s, watch: training.Stopwatch) -> dict[str, Any]:
    """TDPO2 with a second model and full logits, in the words of its definition."""
    import torch
    from torch.nn.functional import logsigmoid

    from trimtab.lm.load import load_lm

    policy, reference = (load_lm(s.model, s.dtype, s.device) for _ in range(2))
    tokenizer, model = policy.tokenizer, policy.model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    data = rows(s)

    def side(name: str, batch: list[dict[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = [[tokenizer(r["prompt"])["input_ids"], [*tokenizer(r[name])["input_ids"], 2]] for r in batch]
        width = max(len(p) + len(c) for p, c in ids)
        tokens, labels = torch.zeros(len(ids), width, dtype=torch.long), torch.full((len(ids), width), -100)
        for i, (p, c) in enumerate(ids):
            tokens[i, : len(p) + len(c)] = torch.tensor(p + c)
            labels[i, len(p) : len(p) + len(c)] = torch.tensor(c)
        return tokens.to(s.device), labels.to(s.device)

    def both(batch: list[dict[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        (a, x), (b, y) = side("chosen", batch), side("rejected", batch)
        width = max(a.shape[1], b.shape[1])
        pad = torch.nn.functional.pad
        grow = [pad(t, (0, width - t.shape[1]), value=v) for t, v in ((a, 0), (b, 0), (x, -100), (y, -100))]
        return torch.cat(grow[:2]), torch.cat(grow[2:])

    for i in range(0, len(data), s.batch):
        watch.begin()
        tokens, labels = both(data[i : i + s.batch])
        mask = labels != -100  # padding stands on the right, where causal attention never sees it
        logits = model(tokens, use_cache=False).logits
        with torch.no_grad():
            ref_logits = reference.model(tokens, use_cache=False).logits
        where, target = mask[:, 1:], labels[:, 1:].clamp(min=0)
        vocabulary = logits[:, :-1].log_softmax(-1)
        ref_vocabulary = ref_logits[:, :-1].log_softmax(-1)
        kl = (ref_vocabulary.exp() * (ref_vocabulary - vocabulary)).sum(-1)
        ratio = (vocabulary - ref_vocabulary).gather(2, target[..., None])[..., 0]
        h, d = (ratio * where).sum(-1).chunk(2), (kl * where).sum(-1).chunk(2)
        loss = -logsigmoid(0.1 * (h[0] - h[1] - 0.5 * (d[1] - d[0].detach()))).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        watch.end()
    return {}


def worker(run: Run, side: str) -> dict[str, Any]:
    s = run.settings
    if side == "tdpo2_plain":
        return training.measured(lambda watch: tdpo2_plain(s, watch), s.device)
    return training.measured(lambda watch: ours(s, watch, side), s.device)


def main(run: Run) -> None:
    s = run.settings
    sides = training.take_turns(run, dict.fromkeys(s.sides, s.rounds))
    figures: dict[str, Any] = {}
    for rival, suffix in {"tdpo2_plain": "", "tdpo2": "_ours", "ln_dpo": "_ln_dpo"}.items():
        if rival in sides.found:
            figures |= training.ratios(sides, "fpo", rival, suffix)
    figures |= training.rates(run, rows(s), sides)
    run.write(figures, name=training.result_name("fpo_lora" if s.lora else "fpo", s.device))
