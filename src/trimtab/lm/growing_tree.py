"""A growing tree of tokens over one language model: the prompt runs once, nodes are added K at a time, nothing moves.

Beam search usually keeps K caches and reorders them at every step. Here a prompt and all its nodes live in one cache
row. A mask lets each node see its prompt and its ancestors only, so choosing other parents costs nothing.
It knows no objective: `trimtab.decoders.token` searches with it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from trimtab.lm.forward import next_logprobs
from trimtab.lm.tree import attention
from trimtab.tensors import pad_right


class _GrowingLayer(DynamicLayer):
    """A cache layer with room to spare: a step writes in place instead of copying everything before it."""

    _length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room = [x.new_empty(*x.shape[:2], 0, x.shape[3]) for x in (key_states, value_states)]
        end = self._length + key_states.shape[2]
        if end > self._room[0].shape[2]:
            self._room = [self._grown(x, 2 * end) for x in self._room]
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, self._length : end] = new
        self._length = end
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def _grown(self, x: Tensor, capacity: int) -> Tensor:
        grown = x.new_empty(*x.shape[:2], capacity, x.shape[3])
        grown[:, :, : self._length] = x[:, :, : self._length]
        return grown

    def keep(self, rows: Tensor) -> None:
        """Drops the cache of the other rows."""
        self._room = [x[rows] for x in self._room]
        self.keys, self.values = (x[:, :, : self._length] for x in self._room)


class TokenTree:
    """Prompts and the K-wide layers of tokens grown on them; see the module. Not for training."""

    @torch.inference_mode()
    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]):
        self.model = model
        self.device = next(model.parameters()).device
        self.cache = Cache(layer_class_to_replicate=_GrowingLayer)
        ids_BT, mask_BT = pad_right(prompts, 0, device=self.device)
        self.first_logprobs_BV = next_logprobs(model, ids_BT, mask_BT, past_key_values=self.cache, use_cache=True)
        """log π of the first token after each prompt."""
        self._position_BX = torch.arange(ids_BT.shape[1], device=self.device).expand_as(ids_BT)
        self._prompt_BX = mask_BT.bool()
        self._next_B = mask_BT.sum(1)
        self._sees_BKX: Tensor | None = None
        self._width = 0

    @torch.inference_mode()
    def grow(self, parents_BK: Tensor, tokens_BK: Tensor) -> Tensor:
        """Adds token `tokens_BK[b, k]` as node k under node `parents_BK[b, k]` of the last layer; log π then (B, K, V).

        The first layer hangs on the prompt, whatever its parents say.
        """
        B, K = tokens_BK.shape
        if self._sees_BKX is None:
            before_BKX = self._prompt_BX[:, None].expand(B, K, -1)
        else:
            before_BKX = self._sees_BKX.gather(1, parents_BK[:, :, None].expand(-1, -1, self._sees_BKX.shape[2]))
        own_BKK = torch.eye(K, dtype=torch.bool, device=self.device).expand(B, K, K)
        self._sees_BKX = torch.cat([before_BKX, own_BKK], -1)
        position_BK = self._next_B[:, None].expand(B, K)
        self._position_BX = torch.cat([self._position_BX, position_BK], 1)
        self._next_B = self._next_B + 1
        masked = attention(self.model, self._sees_BKX, position_BK, self._position_BX)
        out = self.model(input_ids=tokens_BK, past_key_values=self.cache, use_cache=True, **masked)
        return torch.log_softmax(out.logits.float(), -1)

    @torch.inference_mode()
    def keep(self, rows: Tensor) -> None:
        """Drops prompts that are done; `rows` are the indices that stay."""
        for layer in self.cache.layers:
            layer.keep(rows)  # pyright: ignore[reportAttributeAccessIssue]
        self._position_BX, self._prompt_BX = self._position_BX[rows], self._prompt_BX[rows]
        self._next_B = self._next_B[rows]
        self._sees_BKX = None if self._sees_BKX is None else self._sees_BKX[rows]
