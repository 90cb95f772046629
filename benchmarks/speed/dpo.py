"""DPO on SmolLM2-135M, float32, prompts of about 200 tokens and answers of about 100: ours against TRL's DPOTrainer.

TRL 1.16 at its best: reference log-probs precomputed, its fused head, activation checkpointing off (`trl`); and as it
comes, with checkpointing on (`trl_checkpointing`, one round, left out with --small). Every side is a process of its own
that runs the same pairs in the same order with the same optimiser; they alternate, and a step is timed from its begin
to its end.
Tokens are counted as prompt + chosen + prompt + rejected, padding not included. Memory is the peak resident set.
`ratio` = our tokens/s over TRL's, `ratio_cpu_time` the same in processor time (fairer when others use the machine),
`ratio_with_cache` with both sides' reference pass in the time of one epoch, `memory_ratio` = our peak over TRL's.
TRL lives in an environment of its own (neighbours.toml).

`micro_tokens` is ours only (0: the default). On a GPU (--device cuda dtype=bfloat16) the memory is the most that torch
had allocated on it (see shape_2b.py for the model), and the results are dpo_gpu.json's.
"""

import json
import tempfile
import time

from benchmarks import neighbours
from benchmarks.run import Run
from benchmarks.speed import training

SETTINGS = {**training.SETTINGS, "batch": 4, "steps": 4, "rounds": 2, "micro_tokens": 0}
SMALL = {"steps": 1, "rounds": 1}


def rows(s) -> training.Rows:
    return training.random_rows(s.batch * s.steps, (150, 250), (60, 140))


def ours(s, watch: training.Stopwatch) -> dict:
    from trimtab.data.preference import pairs_from_rows
    from trimtab.learners.token import trainer

    spent = []
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
            pairs_from_rows(rows(s)), model=s.model, out=folder + "/run", loss="dpo",
            optim=trainer.Optim(1e-6, batch_size=s.batch, shuffle=False),
            compute=trainer.Compute(
                s.dtype, s.device, s.micro_tokens or None, trainer={"save_strategy": "no"},
                callbacks=[training.callback_of(watch)],
            ),
        ).path  # fmt: skip
        log = [json.loads(x) for x in (out / "log.jsonl").read_text().splitlines()]
    return {"cache_s": sum(spent), "losses": [x["loss"] for x in log if "loss" in x], "plan_mb": planned_mb(s)}


def trl(s, watch: training.Stopwatch, checkpointing: bool) -> dict:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportMissingImports]

    from trimtab.lm.catalog import locate

    folder = str(locate(s.model, "torch"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as out:
        config = DPOConfig(
            out, per_device_train_batch_size=s.batch, num_train_epochs=1, learning_rate=1e-6, beta=0.1, logging_steps=1,
            bf16=False, use_cpu=s.device == "cpu", precompute_ref_log_probs=True, precompute_ref_batch_size=s.batch,
            max_length=None, gradient_checkpointing=checkpointing, report_to="none", save_strategy="no",
            disable_tqdm=True, train_sampling_strategy="sequential", weight_decay=0.0,
            dataloader_pin_memory=s.device != "cpu",
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, s.dtype))
        loaded = time.perf_counter()
        trainer = DPOTrainer(
            model,
            args=config,
            train_dataset=Dataset.from_list(rows(s)),
            processing_class=tokenizer,
            callbacks=[training.callback_of(watch)],
        )
        cache_s = time.perf_counter() - loaded
        trainer.train()
    return {"cache_s": cache_s, "losses": [x["loss"] for x in trainer.state.log_history if "loss" in x]}


def planned_mb(s) -> float:
    """What `trimtab train --plan` would say for the longest pair here, in MB; the interpreter is not in it."""
    from trimtab.learners.token.plan import plan_memory
    from trimtab.lm.catalog import locate

    longest = max(sum(x.values()) + 2 for x in training.sizes(s.model, rows(s)))
    return plan_memory(locate(s.model, "torch"), longest_row=longest, device=s.device, dtype=s.dtype).total / 2**20


def worker(run: Run, side: str) -> dict:
    s = run.settings
    if side == "ours":
        return training.measured(lambda watch: ours(s, watch), s.device)
    return training.measured(lambda watch: trl(s, watch, side == "trl_checkpointing"), s.device)


def main(run: Run) -> None:
    s = run.settings
    rounds = {"ours": s.rounds, "trl": s.rounds}
    if not run.small:
        rounds["trl_checkpointing"] = 1  # shown, not compared: once is enough
    theirs = neighbours.python("trl")
    sides = training.take_turns(run, rounds, {"trl": theirs, "trl_checkpointing": theirs})
    cache = {k: training.median_of(rs, "cache_s") for k, rs in sides.found.items()}
    epoch = {k: sides.step[k] * s.steps + cache[k] for k in sides.found}
    (mine, *_), (peer, *_) = sides.found["ours"], sides.found["trl"]
    figures = {
        **training.ratios(sides, "ours", "trl"), "ratio_with_cache": round(epoch["trl"] / epoch["ours"], 3),
        **training.rates(run, rows(s), sides), "cache_s": {k: round(x, 2) for k, x in cache.items()},
        "plan_mb": round(mine["plan_mb"]),
        "loss_difference": max(abs(a - b) for a, b in zip(mine["losses"], peer["losses"], strict=True)),
    }  # fmt: skip
    if "trl_checkpointing" in sides.found:
        figures |= training.ratios(sides, "ours", "trl_checkpointing", "_checkpointing")
    run.write(figures, name=training.result_name("dpo", s.device))
