"""COMPLETIONS to per-token log-probabilities under a language model, on the same prefix forests as hidden states.

For engines that give no log-probs of the model's own distribution, and for a policy's or reference's log-probs.
Natural logs, temperature 1, whole vocabulary. It computes no gradients.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from trimtab.embeddings.forest import single
from trimtab.embeddings.hidden_states import encode_groups, pack, run_final
from trimtab.errors import ModelError
from trimtab.lm.load import LM
from trimtab.tensors import token_logprobs
from trimtab.types import Group


def completion_logprobs(
    lm: LM, groups: Sequence[Group], *, batch_tokens: int = 1024, shared: bool = True, chunk: int = 256
) -> list[list[npt.NDArray[np.float32]]]:
    """log pi(token | prompt and the completion's earlier tokens), one float32 array a completion, (tokens,) long.

    The tokens are the completion's own, or its text's with the end token (`lm.chat.encode_completion`). The head
    runs on `chunk` positions at a time, so the logits never exceed chunk x vocabulary. InputError when a completion
    with its prompt exceeds the context; ModelError for a model whose logits are not those of its head.
    """
    _check_head(lm)
    starts, rows = encode_groups(lm, groups)
    out = [np.empty(0, dtype=np.float32)] * len(rows)
    for forest in pack(lm, rows, batch_tokens, shared=shared):
        wanted = np.unique(np.concatenate([path[starts[n] :] for n, path in forest.paths]))
        if not len(wanted):
            continue
        states_TD = run_final(lm, forest)
        value_T = np.full(len(forest.token_T), np.nan, dtype=np.float32)
        for nodes in np.split(wanted, range(chunk, len(wanted), chunk)):
            with torch.inference_mode():
                logits_BV = _head(lm, states_TD[torch.from_numpy(forest.parent_T[nodes])])
                # Each node is the second token of a two-token row whose first token is its parent.
                tokens_B2 = torch.from_numpy(forest.token_T[np.stack([forest.parent_T[nodes], nodes], axis=1)])
                logits_B2V = logits_BV[:, None].expand(-1, 2, -1)
                value_T[nodes] = token_logprobs(logits_B2V, tokens_B2.to(logits_BV.device))[:, 0].cpu().numpy()
        for n, path in forest.paths:
            out[n] = value_T[path[starts[n] :]]
    return [out[a:b] for a, b in pairwise(np.cumsum([0, *(len(g.completions) for g in groups)]))]


def _head(lm: LM, states_BD: torch.Tensor) -> torch.Tensor:
    """Logits (B, V) of normed states; Gemma 2 caps them softly between head and softmax."""
    logits_BV = lm.model.get_output_embeddings()(states_BD)
    cap = getattr(lm.model.config.get_text_config(), "final_logit_softcapping", None)
    return torch.tanh(logits_BV / cap) * cap if cap else logits_BV


@lru_cache(maxsize=8)
def _check_head(lm: LM) -> None:
    # Some models scale their logits after the head; log-probs without that would be wrong without an error.
    (chain,) = single([[5, 6, 7]])
    with torch.inference_mode():
        want_TV = lm.model(torch.tensor([[5, 6, 7]], device=lm.model.device), use_cache=False).logits[0].float()
        got_TV = _head(lm, run_final(lm, chain)).float()
    difference = float((got_TV - want_TV).norm() / want_TV.norm())
    if not difference < (1e-3 if lm.model.dtype in (torch.float32, torch.float64) else 0.1):
        raise ModelError(
            f"{lm.name} ({type(lm.model).__name__}) changes its logits after the head (relative difference "
            f"{difference:.2g}); its log-probs cannot be had this way: take them from a sampler"
        )
