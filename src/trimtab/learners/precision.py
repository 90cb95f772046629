"""A dtype's name to how a training computes: type of the weights, type of the matrix products, and the optimiser.

AdamW moves a weight by about the learning rate. bfloat16 has 8 bits, so a weight of 0.02 moves in steps of 1e-4, and an
update of 1e-6 is rounded away: 98 % of the weights would never move. So whole models keep float32 weights and compute
in bfloat16 (autocast), and weights that are asked to be bfloat16 are rounded at random, which is right in the mean.
"""

import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from trimtab.errors import InputError
from trimtab.lm.load import default_dtype

LOW = ("bfloat16", "float16")
WITH = " computed in "
log = logging.getLogger("trimtab")


@dataclass(frozen=True)
class Precision:
    """Type of the weights, and of the matrix products where that is another."""

    weights: str
    products: str | None = None

    def __str__(self) -> str:
        return self.weights + (WITH + self.products if self.products else "")

    @property
    def autocast(self) -> torch.dtype | None:
        """The type of the matrix products as torch has it."""
        return getattr(torch, self.products) if self.products else None

    def computing(self, device: str) -> contextlib.AbstractContextManager:
        """Within the block, forward passes compute as the training's do (the reference's, for one)."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(device).type, self.autocast)


def choose_precision(
    dtype: str | None, device: str, *, lora: bool, before: str | None = None, trainer: Mapping[str, Any] | None = None
) -> Precision:
    """The precision of a training. `before` is what the same run began with: it goes on so on any device.

    None: float32 weights, on an accelerator with products in bfloat16 where it has it; a LoRA's frozen base is
    `default_dtype(device)`, its adapters float32. InputError for float16, which needs a scaled loss.
    """
    asked = trainer or {}
    mixed = "bfloat16" if asked.get("bf16") else "float16" if asked.get("fp16") else None
    if dtype is None and before:
        weights, _, products = before.partition(WITH)
        return Precision(weights, products or None)
    if dtype == "float16" and not (lora and mixed == "float16"):
        raise InputError(
            "float16 cannot train: updates and gradients below 6e-8 are lost. Leave dtype out (float32 weights, "
            'computed in bfloat16 where the device has it), or take dtype="float32" with trainer={"fp16": True}, which '
            "computes in float16 and scales the loss"
        )
    if mixed == "float16" and device.startswith("cpu"):
        raise InputError("fp16 scales the loss, which needs an accelerator; on a CPU leave it out")
    best = str(default_dtype(device)).removeprefix("torch.")
    if dtype is not None:
        return Precision(dtype, mixed if mixed != dtype else None)
    if lora:
        return Precision(best, mixed if mixed != best else None)
    # on a CPU all of it: products in bfloat16 save little there, and they see a weight move by whole last places only
    return Precision("float32", mixed or (best if best != "float32" and not device.startswith("cpu") else None))


def optimizer_for(
    precision: Precision, model: torch.nn.Module, arguments: Any, chosen: bool
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """RoundedAdamW for weights of low precision; None leaves it to transformers. An optimiser that the user has
    `chosen` is taken with a warning that says how many weights it cannot move."""
    weights = [p for p in model.parameters() if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16)]
    if not weights:
        return None
    rate = arguments.learning_rate
    if chosen:
        log.warning(
            "%s weights with the optimiser %s: an update of the learning rate %g is less than half of the last place "
            "of %.0f %% of them, which will not move; leave dtype out, or the optimiser",
            precision.weights, arguments.optim.value, rate, 100 * unmoved(weights, rate),
        )  # fmt: skip
        return None
    betas = (arguments.adam_beta1, arguments.adam_beta2)
    return RoundedAdamW, {
        "lr": rate, "betas": betas, "eps": arguments.adam_epsilon, "seed": arguments.seed,
    }  # fmt: skip


def unmoved(weights: Iterable[Tensor], update: float) -> float:
    """The share of weights that an update of this size leaves where they are: less than half of their last place."""
    still = total = 0
    for p in weights:
        _, exponent = torch.frexp(p.detach().float())
        last_place = (
            torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent - 1) * torch.finfo(p.dtype).eps
        )
        still += int((last_place > 2 * update).sum())
        total += p.numel()
    return still / max(total, 1)


class RoundedAdamW(torch.optim.Optimizer):
    """AdamW for bfloat16 weights: moments and arithmetic in float32, the new weight rounded up or down at random with
    the chance that makes its mean exact. Weights of other types are updated as AdamW does.

    The random numbers follow from `seed` and the step, so that a resumed run equals an uninterrupted one.
    """

    def __init__(
        self, params: Any, lr: float = 1e-6, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, seed: int = 0,
    ):  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "seed": seed})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """torch casts the moments to the weights' type on the way: a resumed run would go on with other ones."""
        super().load_state_dict(state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        for place, held in state_dict["state"].items():
            self.state[params[place]] = {k: v.clone().to(params[place].device) for k, v in held.items()}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        place = 0
        for group in self.param_groups:
            for p in group["params"]:
                place += 1
                if p.grad is not None:
                    self._update(p, group, place)

    def _update(self, p: Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), device=p.device)
            state["exp_avg"] = torch.zeros_like(p, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(p, dtype=torch.float32)
        wide, grad = p.float(), p.grad.float()  # pyright: ignore[reportOptionalMemberAccess]
        adamw(
            [wide], [grad], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]], fused=True, amsgrad=False,
            beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"], weight_decay=group["weight_decay"],
            eps=group["eps"], maximize=False,
        )  # fmt: skip
        if p.dtype == torch.bfloat16:
            seed = (group["seed"] * 1_000_003 + int(state["step"])) * 1_000_003 + place
            round_randomly(wide, p, torch.Generator(p.device).manual_seed(seed % 2**63))
        else:
            p.copy_(wide)


def round_randomly(wide: Tensor, out: Tensor, rng: torch.Generator) -> None:
    """Writes float32 `wide` to bfloat16 `out`, up or down at random so that the mean is exact; `wide` is spent.

    bfloat16 is the upper half of a float32: a random lower half, added, carries with the right chance.
    """
    bits = wide.view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=rng)
    out.copy_(bits.add_(noise).bitwise_and_(-(1 << 16)).view(torch.float32))
