"""DPO on SmolLM2-135M, float32, prompts of about 200 tokens and answers of about 100: ours against TRL's DPOTrainer.

TRL 1.16 at its best: reference log-probs precomputed, its fused head, activation checkpointing off (`trl`); and as it
comes, with checkpointing on (`trl_checkpointing`, one round, left out when SMALL=1). Every side is a process of its own
that runs the same pairs in the same order with the same optimiser; they alternate, and a step is timed from its begin
to its end.
Tokens are counted as prompt + chosen + prompt + rejected, padding not included. Memory is the peak resident set.
`ratio` = our tokens/s over TRL's, `ratio_cpu_time` the same in processor time (fairer when others use the machine),
`ratio_with_cache` with both sides' reference pass in the time of one epoch, `memory_ratio` = our peak over TRL's.
TRL comes by pip, without dependencies, into a private folder; TRL=FOLDER uses one that has it.

MODEL, DEVICE, DTYPE, BATCH, STEPS, ROUNDS and MICRO_TOKENS (ours only) in the environment change what their names say;
on a GPU the memory is the most that torch had allocated on it (see shape_2b.py for the model), and the results are
dpo_gpu.json's.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from training import DEVICE, DTYPE, Stopwatch, callback_of, machine, peak_mb, random_rows

SMALL = bool(os.environ.get("SMALL"))
MODEL = os.environ.get("MODEL", "smollm2-135m")
BATCH = int(os.environ.get("BATCH") or 4)
STEPS = int(os.environ.get("STEPS") or (1 if SMALL else 4))
ROUNDS = int(os.environ.get("ROUNDS") or (1 if SMALL else 2))


def rows() -> list[dict[str, str]]:
    return random_rows(BATCH * STEPS, (150, 250), (60, 140))


def ours() -> dict:
    from trimtab.data.preference import pairs_from_rows
    from trimtab.learners.token import trainer

    watch, spent = Stopwatch(), []
    plain = trainer.with_reference

    def timed(*args, **kwargs):
        begun = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - begun)

    trainer.with_reference = timed
    with tempfile.TemporaryDirectory() as folder:
        out = trainer.train_policy(
            pairs_from_rows(rows()), model=MODEL, out=folder + "/run", loss="dpo", batch_size=BATCH, learning_rate=1e-6,
            shuffle=False, dtype=DTYPE, device=DEVICE, callbacks=[callback_of(watch)],
            micro_tokens=int(os.environ.get("MICRO_TOKENS") or 0) or None, trainer={"save_strategy": "no"},
        )  # fmt: skip
        log = [json.loads(x) for x in (out / "log.jsonl").read_text().splitlines()]
    return {
        "times": watch.times,
        "cpu_times": watch.cpu_times,
        "cache_s": sum(spent),
        "losses": [x["loss"] for x in log if "loss" in x],
    }


def trl(checkpointing: bool) -> dict:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from trimtab.lm.catalog import locate

    folder, watch = str(locate(MODEL, "torch")), Stopwatch()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as out:
        config = DPOConfig(
            out, per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=1e-6, beta=0.1, logging_steps=1,
            bf16=False, use_cpu=DEVICE == "cpu", precompute_ref_log_probs=True, precompute_ref_batch_size=BATCH,
            max_length=None, gradient_checkpointing=checkpointing, report_to="none", save_strategy="no",
            disable_tqdm=True, train_sampling_strategy="sequential", weight_decay=0.0,
            dataloader_pin_memory=DEVICE != "cpu",
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, DTYPE))
        loaded = time.perf_counter()
        trainer = DPOTrainer(
            model,
            args=config,
            train_dataset=Dataset.from_list(rows()),
            processing_class=tokenizer,
            callbacks=[callback_of(watch)],
        )
        cache_s = time.perf_counter() - loaded
        trainer.train()
    return {
        "times": watch.times,
        "cpu_times": watch.cpu_times,
        "cache_s": cache_s,
        "losses": [x["loss"] for x in trainer.state.log_history if "loss" in x],
    }


def planned_mb() -> float:
    """What `trimtab train --plan` would say for the longest pair here, in MB; the interpreter is not in it."""
    from trimtab.learners.token.plan import plan_memory
    from trimtab.lm.catalog import locate
    from trimtab.lm.load import load_tokenizer

    count = load_tokenizer(MODEL)
    longest = max(sum(len(count(v)["input_ids"]) for v in r.values()) + 2 for r in rows())
    return plan_memory(locate(MODEL, "torch"), longest_row=longest, device=DEVICE, dtype=DTYPE).total / 2**20


def worker(side: str) -> None:
    result = ours() if side == "ours" else trl(side == "trl_checkpointing")
    if side == "ours":
        result |= {"plan_mb": planned_mb()}
    result["peak_mb"] = peak_mb()
    print(json.dumps(result))


def run(side: str, path: str) -> dict:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, __file__, side], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def tokens_of_a_step() -> float:
    from trimtab.lm.load import load_tokenizer

    count = load_tokenizer(MODEL)
    sizes = [{k: len(count(v)["input_ids"]) for k, v in r.items()} for r in rows()]
    return sum(2 * s["prompt"] + s["chosen"] + s["rejected"] + 2 for s in sizes) / STEPS


def main() -> None:
    with tempfile.TemporaryDirectory() as private:
        path = os.environ.get("TRL") or private
        if not os.environ.get("TRL"):
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", private, "trl==1.16.0"]
            subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
        sides = ["ours", "trl"] if SMALL else ["ours", "trl", "trl_checkpointing"]
        found = {s: [] for s in sides}
        for n in range(ROUNDS):
            for s in sides[: 3 if n == 0 else 2]:  # the side with checkpointing is shown, not compared: once is enough
                found[s].append(run(s, path))
                print(s, [round(t, 2) for t in found[s][-1]["times"]], round(found[s][-1]["peak_mb"]), "MB", flush=True)
    tokens = tokens_of_a_step()
    # the first step is left out everywhere, unless it is the only one: it allocates the optimiser's state
    warm = min(1, STEPS - 1)
    step = {s: statistics.median(t for r in rs for t in r["times"][warm:]) for s, rs in found.items()}
    cpu = {s: statistics.median(t for r in rs for t in r["cpu_times"][warm:]) for s, rs in found.items()}
    cache = {s: statistics.median(r["cache_s"] for r in rs) for s, rs in found.items()}
    peak = {s: max(r["peak_mb"] for r in rs) for s, rs in found.items()}
    epoch = {s: step[s] * STEPS + cache[s] for s in found}
    result = {
        "ratio": round(step["trl"] / step["ours"], 3), "memory_ratio": round(peak["ours"] / peak["trl"], 3),
        "ratio_cpu_time": round(cpu["trl"] / cpu["ours"], 3),
        "ratio_with_cache": round(epoch["trl"] / epoch["ours"], 3),
        "tokens_per_s": {s: round(tokens / t, 1) for s, t in step.items()},
        "peak_mb": {s: round(x) for s, x in peak.items()}, "cache_s": {s: round(x, 2) for s, x in cache.items()},
        "plan_mb": round(found["ours"][0]["plan_mb"]),
        "loss_difference": max(
            abs(a - b) for a, b in zip(found["ours"][0]["losses"], found["trl"][0]["losses"], strict=True)
        ),
        "model": Path(MODEL).name, "device": DEVICE, "dtype": DTYPE, "batch": BATCH, "steps": STEPS, "small": SMALL,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if "trl_checkpointing" in found:
        result["ratio_checkpointing"] = round(step["trl_checkpointing"] / step["ours"], 3)
        result["memory_ratio_checkpointing"] = round(peak["ours"] / peak["trl_checkpointing"], 3)
    if not SMALL:
        results = Path(__file__).resolve().parent.parent / "results"
        results.mkdir(exist_ok=True)
        (results / ("dpo.json" if DEVICE == "cpu" else "dpo_gpu.json")).write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    worker(sys.argv[1]) if len(sys.argv) > 1 else main()
