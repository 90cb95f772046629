"""Makes reward_values.json: TRL 1.16's RewardTrainer for one epoch, its losses and the trained model's rewards.

Run it in an environment of its own (TRL is no dependency of trimtab, not even for its tests):

    pip install trl==1.16.0 torch==2.13.0 transformers==5.23.0
    python make_reward_values.py FOLDER     # the classifier that test_reward_model.py's `tiny_reward_model` writes

Rows and their order are curve_rows.json's, as plain text. Three runs: plain, with center_rewards_coefficient, with a
margin a pair (0, 0.1, 0.2, ... in turn).
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

HERE = Path(__file__).parent
RUNS = {"plain": {}, "center": {"center": 0.1}, "margin": {"margin": True}}


def train(model: str, rows: list[dict], center: float = 0.0, margin: bool = False) -> dict:
    if margin:
        rows = [{**r, "margin": 0.1 * (i % 5)} for i, r in enumerate(rows)]
    with tempfile.TemporaryDirectory() as out:
        config = RewardConfig(
            out, per_device_train_batch_size=4, num_train_epochs=1, learning_rate=1e-3, logging_steps=1,
            lr_scheduler_type="linear", warmup_steps=0, seed=0, bf16=False, gradient_checkpointing=False, use_cpu=True,
            max_length=None, report_to="none", save_strategy="no", max_grad_norm=1.0, weight_decay=0.0,
            train_sampling_strategy="sequential", disable_tqdm=True, center_rewards_coefficient=center or None,
        )  # fmt: skip
        trainer = RewardTrainer(
            AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32), args=config,
            train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(model),
        )  # fmt: skip
        trainer.train()
    tokenizer, trained = AutoTokenizer.from_pretrained(model), trainer.model.eval()
    rewards = []
    for row in rows:
        for side in ("chosen", "rejected"):
            ids = tokenizer(row["prompt"] + row[side] + tokenizer.eos_token, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                rewards.append(trained(input_ids=ids).logits.item())
    return {"loss": [x["loss"] for x in trainer.state.log_history if "loss" in x], "rewards": rewards}


if __name__ == "__main__":
    rows = json.loads((HERE / "curve_rows.json").read_text())
    values = {name: train(sys.argv[1], rows, **settings) for name, settings in RUNS.items()}
    (HERE / "reward_values.json").write_text(json.dumps(values) + "\n")
