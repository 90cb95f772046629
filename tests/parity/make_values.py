"""Makes values.json: loss values of TRL 1.16 and of the TDPO authors' code, and a DPO loss curve of TRL's trainer.

Run it in an environment of its own (TRL is no dependency of trimtab, not even for its tests):

    pip install trl==1.16.0 torch==2.13.0 transformers==5.23.0
    python make_values.py losses --tdpo Token-level-Direct-Preference-Optimization/trainers.py
    python make_values.py curve --model FOLDER     # a tiny_lm of trimtab.testing, see test_curve.py

TDPO: github.com/Vance0124/Token-level-Direct-Preference-Optimization at 2a736ecb285394a8419b461816bce1ba3b093cc9; only
its functions `tdpo_loss` and `_tdpo_get_batch_logps` are executed, none of it is copied.
"""

import argparse
import ast
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch

FILE = Path(__file__).parent / "values.json"
CASES = 8
SETTINGS = {  # our name: TRL's loss_type and settings, ours
    "dpo": ("sigmoid", {"beta": 0.1}),
    "robust": ("robust", {"beta": 0.3, "flip_rate": 0.2}),
    "ipo": ("ipo", {"beta": 0.1}),
    "ln_dpo": ("sigmoid_norm", {"beta": 2.0}),
    "hinge": ("hinge", {"beta": 0.1}),
}


def inputs() -> dict[str, list[float]]:
    rng = torch.Generator().manual_seed(11)
    values: dict[str, list[float]] = {}
    for side in ("chosen", "rejected"):
        length = torch.randint(3, 40, (CASES,), generator=rng)
        mean = -0.3 - 2 * torch.rand(CASES, generator=rng)
        drift = torch.randn(CASES, generator=rng) * 3
        values[f"{side}_length_B"] = length.tolist()
        values[f"{side}_logprob_B"] = (length * mean).tolist()
        values[f"ref_{side}_logprob_B"] = (length * mean + drift).clamp(max=-0.5).tolist()
    return values


def trl_pairs(name: str, x: dict, i: int) -> float:
    """TRL's own `_compute_loss` on one pair, with a stand-in for the model that returns the given log-probs."""
    from trl import DPOTrainer

    trl_name, settings = SETTINGS[name]
    lengths = [x["chosen_length_B"][i], x["rejected_length_B"][i]]
    width = max(lengths) + 1
    mask = torch.zeros(2, width, dtype=torch.long)
    logprobs = torch.zeros(2, width - 1)
    for row, (side, n) in enumerate(zip(("chosen", "rejected"), lengths, strict=True)):
        mask[row, 1 : n + 1] = 1
        logprobs[row, :n] = x[f"{side}_logprob_B"][i] / n
    zeros = torch.zeros_like(logprobs)
    out = SimpleNamespace(log_probs=logprobs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    me = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=accelerator(), aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", beta=settings["beta"], loss_types=[trl_name],
        loss_weights=[1.0], label_smoothing=settings.get("flip_rate", 0.0), use_weighting=False,
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1, args=None,
    )  # fmt: skip
    batch = {
        "input_ids": torch.ones(2, width, dtype=torch.long), "attention_mask": torch.ones(2, width),
        "completion_mask": mask,
        "ref_chosen_logps": torch.tensor([x["ref_chosen_logprob_B"][i]]),
        "ref_rejected_logps": torch.tensor([x["ref_rejected_logprob_B"][i]]),
    }  # fmt: skip
    return DPOTrainer._compute_loss(me, lambda **_: out, batch, False).item()


def accelerator() -> SimpleNamespace:
    return SimpleNamespace(device="cpu", gather=lambda t: t, gather_for_metrics=lambda t: t)


def trl_cpo(x: dict) -> list[float]:
    from trl.experimental.cpo import CPOTrainer

    me = SimpleNamespace(alpha=0.0, beta=0.1, label_smoothing=0.0, loss_type="sigmoid", accelerator=accelerator())
    chosen, rejected = (torch.tensor(x[f"{s}_logprob_B"]) for s in ("chosen", "rejected"))
    preference = CPOTrainer.cpo_loss(me, chosen, rejected)[0]
    return (preference - chosen / torch.tensor(x["chosen_length_B"])).tolist()  # its default cpo_alpha is 1


def trl_simpo(x: dict) -> list[float]:
    from trl.experimental.cpo import CPOTrainer

    me = SimpleNamespace(
        alpha=0.0, beta=2.0, label_smoothing=0.0, loss_type="simpo", simpo_gamma=0.5, accelerator=accelerator()
    )
    means = (torch.tensor(x[f"{s}_logprob_B"]) / torch.tensor(x[f"{s}_length_B"]) for s in ("chosen", "rejected"))
    return CPOTrainer.cpo_loss(me, *means)[0].tolist()


def trl_orpo(x: dict) -> list[float]:
    from trl.experimental.orpo import ORPOTrainer

    me = SimpleNamespace(beta=0.1, accelerator=accelerator())
    chosen, rejected = (
        torch.tensor(x[f"{s}_logprob_B"]) / torch.tensor(x[f"{s}_length_B"]) for s in ("chosen", "rejected")
    )
    return (-chosen - ORPOTrainer.odds_ratio_loss(me, chosen, rejected)[0]).tolist()


def trl_kto(x: dict) -> dict:
    """All chosen are desirable, all rejected undesirable; mismatched pairs: the rejected shifted by one."""
    from trl import KTOTrainer

    logprob = torch.tensor(x["chosen_logprob_B"] + x["rejected_logprob_B"])
    ref = torch.tensor(x["ref_chosen_logprob_B"] + x["ref_rejected_logprob_B"])
    kl, ref_kl = logprob.roll(1) + 2.5, ref.roll(1)
    n = 2 * CASES
    zeros = torch.zeros(n, 1)
    out = SimpleNamespace(log_probs=logprob[:, None], entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    me = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=accelerator(), aux_loss_enabled=False,
        precompute_ref_logps=True, calculate_KL=True, beta=0.1, loss_type="kto", desirable_weight=1.5,
        undesirable_weight=0.7, _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1, args=None,
        _compute_kl_logps=lambda *_: kl,
    )  # fmt: skip
    two = torch.ones(n, 2, dtype=torch.long)
    batch = {
        "input_ids": two, "attention_mask": two, "ref_logps": ref,
        "completion_mask": torch.tensor([[0, 1]]).expand(n, 2),
        "ref_KL_logps": ref_kl, "label": torch.tensor([True] * CASES + [False] * CASES),
    }  # fmt: skip
    loss = KTOTrainer._compute_loss(me, lambda **_: out, batch, False).item()
    return {
        "mismatched_logprob_K": kl.tolist(), "ref_mismatched_logprob_K": ref_kl.tolist(), "mean_loss": loss,
        "settings": {"beta": 0.1, "desirable_weight": 1.5, "undesirable_weight": 0.7},
    }  # fmt: skip


def authors_tdpo(path: Path) -> dict:
    """Losses and KL from logits, by the authors' two functions."""
    tree = ast.parse(path.read_text())
    wanted = [
        n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in ("tdpo_loss", "_tdpo_get_batch_logps")
    ]
    names = {"torch": torch, "F": torch.nn.functional, "Tuple": tuple, "List": list, "Optional": SimpleNamespace}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), names)
    rng = torch.Generator().manual_seed(5)
    B, T, V = 3, 7, 11
    logits, ref_logits = (torch.randn(2 * B, T, V, generator=rng) for _ in range(2))
    labels = torch.randint(V, (2 * B, T), generator=rng)
    starts, ends = [2, 3, 1, 2, 3, 1], [7, 5, 6, 6, 7, 4]
    masked = labels.clone()
    for row, (a, b) in enumerate(zip(starts, ends, strict=True)):
        masked[row, :a] = -100
        masked[row, b:] = -100
    margin, kl, logprob = names["_tdpo_get_batch_logps"](logits, ref_logits, masked)
    found = {
        n: {k: v.tolist() for k, v in zip(("loss_B", "chosen_reward_B", "rejected_reward_B"), out, strict=True)}
        for n, second in (("tdpo1", False), ("tdpo2", True))
        for out in [names["tdpo_loss"](margin[:B], margin[B:], kl[:B], kl[B:], 0.1, 0.5, second)]
    }
    return {
        "logits": logits.tolist(), "ref_logits": ref_logits.tolist(), "ids": labels.tolist(),
        "starts": starts, "ends": ends,
        "kl": kl.tolist(), "logprob": logprob.tolist(), "logratio": margin.tolist(), **found,
    }  # fmt: skip


def curve(model: str) -> dict:
    """Losses of every step of TRL's DPOTrainer, float32, in the order of the rows."""
    import tempfile

    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    rows = json.loads((FILE.parent / "curve_rows.json").read_text())
    with tempfile.TemporaryDirectory() as out:
        config = DPOConfig(
            out, per_device_train_batch_size=4, num_train_epochs=1, learning_rate=1e-3, beta=0.1, logging_steps=1,
            lr_scheduler_type="linear", warmup_steps=0, seed=0, bf16=False, gradient_checkpointing=False, use_cpu=True,
            precompute_ref_log_probs=True, max_length=None, report_to="none", save_strategy="no", max_grad_norm=1.0,
            weight_decay=0.0, train_sampling_strategy="sequential", disable_tqdm=True,
        )  # fmt: skip
        trainer = DPOTrainer(
            AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), args=config,
            train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(model),
        )  # fmt: skip
        trainer.train()
    logs = [x for x in trainer.state.log_history if "loss" in x]
    keys = ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected")
    return {k: [x[k] for x in logs] for k in keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["losses", "curve"])
    parser.add_argument("--tdpo", type=Path)
    parser.add_argument("--model")
    args = parser.parse_args()
    values = json.loads(FILE.read_text()) if FILE.exists() else {}
    if args.what == "losses":
        x = inputs()
        values["inputs"] = x
        values["trl"] = {n: [trl_pairs(n, x, i) for i in range(CASES)] for n in SETTINGS}
        values["trl"] |= {"simpo": trl_simpo(x), "orpo": trl_orpo(x), "cpo": trl_cpo(x)}
        values["settings"] = {n: s for n, (_, s) in SETTINGS.items()}
        values["settings"] |= {"simpo": {"beta": 2.0, "gamma": 0.5}, "orpo": {"beta": 0.1}, "cpo": {"beta": 0.1}}
        values["kto"] = trl_kto(x)
        if args.tdpo:
            values["tdpo"] = authors_tdpo(args.tdpo)
    else:
        values["curve"] = curve(args.model)
    FILE.write_text(json.dumps(values) + "\n")


if __name__ == "__main__":
    main()
