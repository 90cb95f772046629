"""What can be known of a training before a model is loaded: every fault is found and said at once."""

from collections.abc import Mapping
from typing import Any

from trimtab.errors import InputError, unknown
from trimtab.jobs import checks


def check_training(
    model: str, out: str, *, lora: bool, dtype: str | None, device: str | None, overlong: str, epochs: float,
    batch_size: int, learning_rate: float | None, reference: str | None = None, loss: str = "",
    settings: Mapping[str, float] | None = None, leash: bool = False,
) -> None:  # fmt: skip
    """InputError with all that is wrong with a training's settings; a reward model has no `loss` to name."""
    checks.every((
        lambda: checks.writable(out),
        lambda: checks.local_model(model),
        lambda: checks.local_model(reference) if reference else None,
        lambda: checks.device_and_dtype(device, dtype),
        lambda: _loss(loss, settings or {}, leash) if loss else None,
        lambda: _numbers(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate),
        lambda: _word("--overlong", overlong, ("refuse", "drop")),
        lambda: checks.need("torch", "transformers", *(["peft"] if lora else [])),
    ))  # fmt: skip


def _loss(loss: str, settings: Mapping[str, float], leash: bool) -> None:
    from trimtab.learners.token.step import resolve_loss

    resolve_loss(loss, settings)
    if loss == "fpo" and not leash:
        raise InputError("the loss fpo needs a feature leash: give --sae")
    if leash and loss in ("orpo", "sft", "kto"):
        raise InputError(f"{loss} has no margin for a feature leash to lie on; fpo, simpo, dpo, ipo and tdpo2 do")


def _numbers(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not value > 0:
            raise InputError(f"{name.replace('_', ' ')} is {value:g}; it must be above 0")


def _word(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown(f"value of {flag}", value, known)
