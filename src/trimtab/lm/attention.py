"""A model's configuration to the attention masks that its forward takes: which window each kind of layer has.

Whoever lays several texts out in one row (shared prompts, forests, search trees) makes a mask of its own and must bound
it as the model does. It computes no mask itself; `attention_masks` asks for one a window.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from trimtab.errors import ModelError

KNOWN = {"full_attention", "sliding_attention"}


def layer_windows(config: Any) -> dict[str, int | None]:
    """The window of each kind of layer, in positions a token sees back (itself included); None = all of them.

    The kinds are those of the configuration's `layer_types`. A model without these has one kind, "", with the window
    of its configuration. What the class does not declare is a leftover and bounds nothing. ModelError for layers that
    follow no such mask (recurrent, chunked).
    """
    known = dir(type(config))  # what the class declares, its forward reads
    kinds = set((getattr(config, "layer_types", None) if "layer_types" in known else None) or ())
    if kinds - KNOWN:
        raise ModelError(
            f"{config.model_type} has layers of type {', '.join(sorted(kinds - KNOWN))}, not only attention with or "
            "without a window: texts cannot share a row; pass share_prompt=False (shared=False for embeddings)"
        )
    declared = "sliding_window" in known and getattr(config, "use_sliding_window", True)
    window = (getattr(config, "sliding_window", None) or None) if declared else None
    if not kinds:
        return {"": window}
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}


def attention_masks(config: Any, make: Callable[[int | None], Any]) -> Any:
    """The `attention_mask` argument of a forward: one mask, or one a kind of layer where kinds differ.

    `make` gives the mask of a window (None = without).
    """
    windows = layer_windows(config)
    made = {window: make(window) for window in set(windows.values())}
    if len(made) == 1:
        return made.popitem()[1]
    return {kind: made[window] for kind, window in windows.items()}


@contextlib.contextmanager
def narrowed(config: Any, most: int) -> Iterator[None]:
    """Within the block a sliding window is at most so many positions wide, so that a check on a short text meets it."""
    wide = getattr(config, "sliding_window", None)
    if not wide or wide <= most:
        yield
        return
    config.sliding_window = most
    try:
        yield
    finally:
        config.sliding_window = wide


__all__ = ["attention_masks", "layer_windows", "narrowed"]
