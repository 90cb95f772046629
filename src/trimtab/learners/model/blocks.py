"""An encoder's vectors to centred, balanced columns: no block of numbers drowns another. Pure numpy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


def blockwise(X_PD: Vectors, blocks: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    """The centre and the scale of every column: afterwards each block has mean squared length 1.

    `blocks` are the widths an encoder declares (meaning, words, characters, marks). Within a block columns are divided
    by the root of their spread plus the block's mean spread, which lifts rare words a little and noise not much.
    """
    centre = X_PD.mean(0)
    spread = X_PD.std(0)
    scale = np.ones_like(spread)
    start = 0
    for width in blocks:
        s = spread[start : start + width]
        if s.any():
            by = 1 / np.sqrt(s + s.mean())
            scale[start : start + width] = by / np.sqrt(((s * by) ** 2).sum())
        start += width
    return {"x_mean": centre, "x_scale": scale}


def scaled(weights: Mapping[str, npt.NDArray[Any]], X_PD: Vectors) -> Vectors:
    """The vectors as balanced columns, shape (P, D)."""
    return (X_PD - weights["x_mean"]) * weights["x_scale"]
