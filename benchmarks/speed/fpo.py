"""FPO against TDPO2 and against LN-DPO on SmolLM2-135M, float32, prompts and answers of about 100 tokens.

Four sides, each a process of its own on the same pairs in the same order: `fpo` (ours, an SAE 8 times as wide as the
hidden state, reference cached), `ln_dpo` (ours, reference cached: what FPO is without its leash), `tdpo2` (ours: the
reference live, KL in chunks of the vocabulary) and `tdpo2_plain` (TDPO2 as its authors and FPO's write it: a second
model, the full logits of both, log-softmax over the vocabulary, the same optimiser). A step is timed from its begin to
its end, memory is the peak resident set of the process.
`ratio` = FPO's tokens/s over `tdpo2_plain`'s and `memory_ratio` its peak over that side's; `ratio_ours` and
`memory_ratio_ours` the same against our own TDPO2; `ratio_ln_dpo`, `memory_ratio_ln_dpo` against LN-DPO;
`ratio_cpu_time...` are the same in processor time, fairer when others use the machine. Each side
counts prompt + chosen + prompt + rejected tokens, padding not included. SIDES, BATCH, STEPS, ROUNDS, LORA=1, MODEL,
LAYER, SAE_WIDTH, DEVICE and DTYPE in the environment change what their names say; on a GPU the memory is the most that
torch had allocated on it (see shape_2b.py for the model), and the results are fpo_gpu.json's.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training import DEVICE, DTYPE, Stopwatch, callback_of, machine, peak_mb, random_rows

SMALL = bool(os.environ.get("SMALL"))
MODEL = os.environ.get("MODEL", "smollm2-135m")
LORA = bool(os.environ.get("LORA"))
BATCH = int(os.environ.get("BATCH") or (2 if SMALL else 8))
STEPS = int(os.environ.get("STEPS") or (1 if SMALL else 2))
ROUNDS = int(os.environ.get("ROUNDS") or (1 if SMALL else 2))
LAYER = int(os.environ.get("LAYER") or 26)
SAE_WIDTH = int(os.environ.get("SAE_WIDTH") or 8 * 576)
SIDES = tuple(os.environ.get("SIDES", "fpo tdpo2_plain" if SMALL else "fpo tdpo2_plain ln_dpo tdpo2").split())
LENGTHS = ((20, 30), (20, 30)) if SMALL else ((90, 110), (90, 110))


def rows() -> list[dict[str, str]]:
    return random_rows(BATCH * STEPS, *LENGTHS)


def ours(loss: str) -> dict[str, Any]:
    from trimtab.data.preference import pairs_from_rows
    from trimtab.learners.feature.leash import FeatureLeash
    from trimtab.learners.feature.sae import random_sae
    from trimtab.learners.token import trainer

    watch = Stopwatch()
    leash = FeatureLeash(random_sae(shape()), LAYER) if loss == "fpo" else None
    with tempfile.TemporaryDirectory() as folder:
        trainer.train_policy(
            pairs_from_rows(rows()), model=MODEL, out=folder + "/run", loss=loss, batch_size=BATCH, learning_rate=1e-6,
            shuffle=False, dtype=DTYPE, device=DEVICE, callbacks=[callback_of(watch)],
            trainer={"save_strategy": "no"}, leash=leash, lora=trainer.Lora() if LORA else None,
        )  # fmt: skip
    return {"times": watch.times, "cpu_times": watch.cpu_times}


def shape() -> Any:
    """A TopK SAE of the right shape; its values do not matter for time and memory."""
    import torch
    from transformers import AutoConfig

    from trimtab.learners.feature.sae import SAE
    from trimtab.lm.catalog import locate

    D, F = AutoConfig.from_pretrained(locate(MODEL, "torch")).hidden_size, SAE_WIDTH
    ones = torch.full((D, F), 0.04)
    return SAE(ones, torch.zeros(F), ones.T.contiguous(), torch.zeros(D), "topk", None, 32, layer=LAYER)


def tdpo2_plain() -> dict[str, Any]:
    """TDPO2 with a second model and full logits, in the words of its definition."""
    import torch
    from torch.nn.functional import logsigmoid

    from trimtab.lm.load import load_lm

    policy, reference = (load_lm(MODEL, DTYPE, DEVICE) for _ in range(2))
    tokenizer, model = policy.tokenizer, policy.model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    data, watch = rows(), Stopwatch()

    def side(name: str, batch: list[dict[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = [[tokenizer(r["prompt"])["input_ids"], [*tokenizer(r[name])["input_ids"], 2]] for r in batch]
        width = max(len(p) + len(c) for p, c in ids)
        tokens, labels = torch.zeros(len(ids), width, dtype=torch.long), torch.full((len(ids), width), -100)
        for i, (p, c) in enumerate(ids):
            tokens[i, : len(p) + len(c)] = torch.tensor(p + c)
            labels[i, len(p) : len(p) + len(c)] = torch.tensor(c)
        return tokens.to(DEVICE), labels.to(DEVICE)

    def both(batch: list[dict[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        (a, x), (b, y) = side("chosen", batch), side("rejected", batch)
        width = max(a.shape[1], b.shape[1])
        pad = torch.nn.functional.pad
        grow = [pad(t, (0, width - t.shape[1]), value=v) for t, v in ((a, 0), (b, 0), (x, -100), (y, -100))]
        return torch.cat(grow[:2]), torch.cat(grow[2:])

    for i in range(0, len(data), BATCH):
        watch.begin()
        tokens, labels = both(data[i : i + BATCH])
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
    return {"times": watch.times, "cpu_times": watch.cpu_times}


def worker(side: str) -> None:
    result = tdpo2_plain() if side == "tdpo2_plain" else ours(side)
    result["peak_mb"] = peak_mb()
    print(json.dumps(result))


def run(side: str) -> dict[str, Any]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, __file__, side], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed with status {done.returncode} (-9: no memory left):\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def tokens_of_a_step() -> float:
    from trimtab.lm.load import load_tokenizer

    count = load_tokenizer(MODEL)
    sizes = [{k: len(count(v)["input_ids"]) for k, v in r.items()} for r in rows()]
    return sum(2 * s["prompt"] + s["chosen"] + s["rejected"] + 2 for s in sizes) / STEPS


def main() -> None:
    sides = SIDES
    found: dict[str, list[dict[str, Any]]] = {s: [] for s in sides}
    for _ in range(ROUNDS):
        for s in sides:
            found[s].append(run(s))
            print(s, [round(t, 2) for t in found[s][-1]["times"]], round(found[s][-1]["peak_mb"]), "MB", flush=True)
    warm = min(1, STEPS - 1)  # the first step allocates the optimiser's state
    step = {s: statistics.median(t for r in rs for t in r["times"][warm:]) for s, rs in found.items()}
    cpu = {s: statistics.median(t for r in rs for t in r["cpu_times"][warm:]) for s, rs in found.items()}
    peak = {s: max(r["peak_mb"] for r in rs) for s, rs in found.items()}
    names = {"tdpo2_plain": "", "tdpo2": "_ours", "ln_dpo": "_ln_dpo"}
    result: dict[str, Any] = {}
    for rival, suffix in names.items():
        if rival in found:
            result[f"ratio{suffix}"] = round(step[rival] / step["fpo"], 3)
            result[f"ratio_cpu_time{suffix}"] = round(cpu[rival] / cpu["fpo"], 3)
            result[f"memory_ratio{suffix}"] = round(peak["fpo"] / peak[rival], 3)
    tokens = tokens_of_a_step()
    result |= {
        "tokens_per_s": {s: round(tokens / t, 1) for s, t in step.items()},
        "peak_mb": {s: round(x) for s, x in peak.items()}, "model": Path(MODEL).name, "sae_width": SAE_WIDTH,
        "layer": LAYER, "device": DEVICE, "dtype": DTYPE, "lora": LORA, "batch": BATCH, "steps": STEPS, "small": SMALL,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"), "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if not SMALL:
        results = Path(__file__).resolve().parent.parent / "results"
        results.mkdir(exist_ok=True)
        name = ("fpo_lora" if LORA else "fpo") + ("" if DEVICE == "cpu" else "_gpu")
        (results / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    worker(sys.argv[1]) if len(sys.argv) > 1 else main()
