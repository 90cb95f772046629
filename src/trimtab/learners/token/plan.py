"""A model's files and the run's settings to a memory plan, before anything is loaded.

Weights, gradients and optimiser states are exact for AdamW; activations are an estimate for Llama-like blocks (what a
block keeps for its backward pass, see `_kept`). It reads config.json and the headers of the safetensors files only.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError
from trimtab.json_file import read_json
from trimtab.learners.precision import WITH
from trimtab.learners.run import Lora, micro_budget
from trimtab.lm.load import default_device
from trimtab.tensors import chunk_logits

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose; `total` is their sum, the interpreter's own few hundred megabytes not included."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    reference: int
    parameters: int
    trained: int
    leash: int = 0
    """The SAE of a feature leash and one micro-batch's features; its reference is cached, so it loads no model."""

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return (
            self.weights + self.gradients + self.optimizer + self.activations + self.head + self.reference + self.leash
        )

    def __str__(self) -> str:
        rows = ("weights", "gradients", "optimizer", "activations", "head", "reference", "leash", "total")
        lines = [f"{name:<12}{getattr(self, name) / 2**20:>10,.0f} MB" for name in rows]
        return "\n".join([f"{self.trained:,} of {self.parameters:,} parameters are trained", *lines])


def plan_memory(
    folder: str | Path, *, longest_row: int, device: str | None = None, micro_tokens: int | None = None,
    dtype: str = "float32", lora: Lora | None = None, checkpointing: bool = False, live_reference: bool = False,
    sae_width: int = 0,
) -> MemoryPlan:  # fmt: skip
    """The plan for a model folder and a longest row (prompt and every completion, in tokens).

    A forward holds at most max(`micro_tokens`, `longest_row`) tokens, whatever the batch size; `micro_tokens` None is
    train_policy's default on `device`. `sae_width` is the number of features of a leash: its encoder and decoder in
    float32, and a chunk of features. `dtype` is a type of the weights, or str() of the training's `Precision`: weights
    computed in another type are held in that, too. Adapters and the optimiser's moments are float32 at least.
    """
    folder, device = Path(folder), device or default_device()
    config = _config(folder)
    parameters, tied = _parameters(folder), bool(config.get("tie_word_embeddings", True))
    D, L, V = config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
    weights, _, products = dtype.partition(WITH)
    size = BYTES[weights]
    wide = max(size, 4)
    learnt = wide if lora else size
    trained = _adapter(config, lora) if lora else parameters
    tokens = max(micro_tokens or micro_budget(device), longest_row)
    kept = L * D + _kept(config) if checkpointing else L * _kept(config)
    chunk = chunk_logits(device) * 4
    head_gradient = 0 if lora else V * D * (4 + (size if tied else 0))
    return MemoryPlan(
        weights=parameters * (size + BYTES.get(products, 0)) + (trained * wide if lora else 0),
        gradients=trained * learnt,
        optimizer=2 * trained * wide,
        activations=tokens * kept * size,
        head=3 * chunk + head_gradient,
        reference=parameters * size if live_reference and not lora else 0,
        parameters=parameters,
        trained=trained,
        leash=4 * (2 * D * sae_width + 2 * 2**22) if sae_width else 0,
    )


def _config(folder: Path) -> dict[str, Any]:
    do = "take a whole model folder"
    found = read_json(
        folder / "config.json", "a model's configuration", {"text_config?": dict}, error=ModelError, do=do
    )
    config = found.get("text_config", found)
    sizes = ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size", "num_attention_heads")
    given = [*sizes, *(k for k in ("head_dim", "num_key_value_heads") if config.get(k) is not None)]
    if bad := [k for k in given if type(config.get(k)) is not int or config[k] < 1]:
        raise ModelError(
            f"{folder}/config.json: {', '.join(bad)} are missing or no sizes, and memory is planned by them"
        )
    return config


def _kept(config: dict[str, Any]) -> int:
    """Numbers a block keeps per token for its backward pass: norms, projections, attention, gated MLP."""
    D, F = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or D // heads
    attention = heads * head_dim
    return 8 * D + 8 * attention + 4 * F


def _adapter(config: dict[str, Any], lora: Lora) -> int:
    """Parameters of adapters on every linear layer of the blocks."""
    D, F, L = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or D // heads
    q, kv = heads * head_dim, config.get("num_key_value_heads", heads) * head_dim
    sides = (D + q) * 2 + (D + kv) * 2 + (D + F) * 3
    return L * lora.rank * sides


def _parameters(folder: Path) -> int:
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: no .safetensors file to count parameters in")
    total = 0
    for file in files:
        try:
            with safe_open(file, framework="numpy") as f:
                total += sum(math.prod(f.get_slice(key).get_shape()) for key in f.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as e:
            raise ModelError(f"{file}: is no whole safetensors file ({e}); copy or save it again") from e
    return total
