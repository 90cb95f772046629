"""Embedding rows, wherever they lie, to the two products a linear fit needs: X v and X^T g.

Rows may be one array or memory map (float16, float32, float64), or blocks that are read again on every pass, so that
they need not fit in memory. Arithmetic is float32, sums over blocks float64; no copy of the whole is ever made, and
standardisation is folded into the vectors. It does not know losses or rewards.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab.errors import InputError

BLOCK_BYTES = 2 << 20
"""Rows converted or squared at a time: small enough to stay in a processor's last cache."""


@dataclass(frozen=True, eq=False)
class RowBlocks:
    """(rows, dim) float rows as a stream of blocks that can be read many times."""

    blocks: Callable[[], Iterator[Tensor]]
    """Float32 tensors of shape (any, dim), in order; a tensor may be overwritten once the next one is asked for."""
    rows: int
    dim: int
    array: Tensor | None = None
    """The whole as one tensor of any float dtype, when it is one: what random access (AdamW, MLPs) needs."""

    def times(self, v_D: Tensor) -> Tensor:
        """X v, shape (rows,), float64."""
        v_D = v_D.float()

        def values(part: RowBlocks, _: int) -> Tensor:
            out_R, at = torch.empty(part.rows, dtype=torch.float64), 0
            for x in part.blocks():
                out_R[at : at + len(x)] = torch.mv(x, v_D)
                at += len(x)
            return out_R

        return torch.cat(self._by_thread(values))

    def transposed_times(self, g_R: Tensor) -> Tensor:
        """X^T g, shape (dim,), float64."""
        g_R = g_R.float()

        def total(part: RowBlocks, at: int) -> Tensor:
            out_D = torch.zeros(part.dim, dtype=torch.float64)
            for x in part.blocks():
                out_D += torch.mv(x.T, g_R[at : at + len(x)])
                at += len(x)
            return out_D

        return torch.stack(self._by_thread(total)).sum(0)

    def _by_thread(self, work: Callable[["RowBlocks", int], Tensor]) -> list[Tensor]:
        """`work(part, its first row)` of an even part of the rows for every thread that torch may use.

        Half the time of torch's own threads, which share each block and wait for each other 700 times a pass (92,800 x
        4,096 float16, two cores). Streamed rows, and those of less than 128 MB, are one part.
        """
        threads = torch.get_num_threads()
        if self.array is None or threads == 1 or self.array.nbytes < 64 * BLOCK_BYTES:
            return [work(self, 0)]
        cuts = [self.rows * t // threads for t in range(threads + 1)]
        parts = [(row_blocks(self.array[a:b], b - a), a) for a, b in pairwise(cuts)]
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(lambda job: work(*job), parts))
        finally:
            torch.set_num_threads(threads)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every column, float64, in one pass. InputError names a row that is not finite
        and a number of rows that is not the promised one."""
        shift_D: Tensor | None = None
        sum_D = torch.zeros(self.dim, dtype=torch.float64)
        square_D, at = torch.zeros_like(sum_D), 0
        step = max(BLOCK_BYTES // (4 * self.dim), 1)
        buffer = torch.empty(min(step, self.rows), self.dim)
        for block in self.blocks():
            for x in block.split(step):
                if shift_D is None:  # sums about a first guess of the mean: float32 squares would cancel otherwise
                    shift_D = x.mean(0)
                part = torch.sub(x, shift_D, out=buffer[: len(x)])
                part_sum = part.sum(0)
                if not torch.isfinite(part_sum).all():
                    row = at + int((~torch.isfinite(x).all(1)).nonzero()[0]) if not torch.isfinite(x).all() else at
                    raise InputError(f"row {row} of the vectors is not finite; check the model and its dtype")
                sum_D += part_sum
                square_D += part.square_().sum(0)
                at += len(x)
        if at != self.rows or shift_D is None:
            raise InputError(f"the blocks of vectors hold {at} rows, but there are {self.rows} rewards")
        offset_D = sum_D / at
        return shift_D.double() + offset_D, (square_D / at - offset_D**2).clamp(min=0).sqrt()

    def take(self, index_M: npt.NDArray[np.int64]) -> Tensor:
        """The rows `index_M` (ascending), float32, shape (M, dim); at most one pass."""
        if self.array is not None:
            return self.array[torch.from_numpy(index_M)].float()
        out, at = [], 0
        for x in self.blocks():
            here = index_M[(index_M >= at) & (index_M < at + len(x))] - at
            out.append(x[torch.from_numpy(here)].clone())
            at += len(x)
        return torch.cat(out)


def row_blocks(X: Any, rows: int) -> RowBlocks:
    """RowBlocks of a 2-d array, memory map or tensor, of a list of arrays, or of a function that opens an iterator.

    A plain generator is refused: a fit reads the rows several times.
    """
    if isinstance(X, np.ndarray | Tensor) and X.ndim == 2:
        if len(X) != rows:
            raise InputError(f"the vectors hold {len(X)} rows, but there are {rows} rewards")
        tensor = _tensor(X)
        return RowBlocks(lambda: _pieces(tensor), rows, tensor.shape[1], tensor)
    opener: Callable[[], Any]
    if callable(X):
        opener = X
    elif isinstance(X, Iterable) and not isinstance(X, Iterator) and not isinstance(X, np.ndarray | Tensor):
        opener = lambda: X  # noqa: E731
    else:
        raise InputError(
            "vectors must be a 2-d array, a list of 2-d arrays, or a function that returns a new iterator of them "
            "(a generator can be read only once, and a fit needs several passes)"
        )
    first = next(iter(opener()), None)
    if first is None or np.ndim(first) != 2:
        raise InputError("blocks of vectors must be 2-d arrays, and there must be at least one")
    dim = int(first.shape[1])

    def blocks() -> Iterator[Tensor]:
        for block in opener():
            if np.ndim(block) != 2 or block.shape[1] != dim:
                raise InputError(f"a block of vectors has shape {tuple(block.shape)}, the first one had {dim} columns")
            yield from _pieces(_tensor(block))

    return RowBlocks(blocks, rows, dim)


def _tensor(X: Any) -> Tensor:
    if isinstance(X, Tensor):
        return X.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a read-only memory map: nothing here writes to it
        return torch.from_numpy(np.asarray(X))


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    if tensor.dtype == torch.float32:
        yield tensor
        return
    step = max(BLOCK_BYTES // (4 * max(tensor.shape[1], 1)), 1)
    buffer = torch.empty(min(step, len(tensor)), tensor.shape[1])
    for piece in tensor.split(step):
        yield buffer[: len(piece)].copy_(piece)
