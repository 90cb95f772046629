"""stories260K (Karpathy's TinyStories Llama, 260,032 parameters, MIT) as a Hugging Face folder, from llama2.c's files.

    python -m benchmarks.repro.fpo.stories FOLDER

A real language model so small that every method
and every sweep of FPO's claims fits into minutes on one core, with hundreds of prompts behind every interval.
"""

import struct
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.data import find


def pieces() -> list[str]:
    """The 512 pieces in order of their id; in a SentencePiece BPE, merges are the pieces themselves in that order."""
    data, at, out = find("stories260k_tokens").read_bytes(), 4, []
    while at < len(data):
        _, size = struct.unpack_from("<fi", data, at)
        out.append(data[at + 8 : at + 8 + size].decode("utf-8", "replace"))
        at += 8 + size
    return ["<unk>", "<s>", "</s>", *(p if p.startswith("<0x") else p.replace(" ", "▁") for p in out[3:])]


def tokenizer() -> PreTrainedTokenizerFast:
    names = pieces()
    names[3:259] = [f"<0x{i:02X}>" for i in range(256)]
    vocab = {p: i for i, p in enumerate(names)}
    merges = [(p[:i], p[i:]) for p in names[259:] for i in range(1, len(p)) if p[:i] in vocab and p[i:] in vocab]
    t = Tokenizer(BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def model() -> LlamaForCausalLM:
    raw = find("stories260k").read_bytes()
    D, F, L, H, KV, V, T = struct.unpack_from("<7i", raw)
    numbers, at, size = np.frombuffer(raw, np.float32, offset=28), 0, D // H

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        n = int(np.prod(shape))
        at += n
        return torch.from_numpy(numbers[at - n : at].reshape(shape).copy())

    def halves(w: torch.Tensor, heads: int) -> torch.Tensor:
        """llama2.c rotates neighbours, Hugging Face halves."""
        return w.view(heads, size // 2, 2, D).transpose(1, 2).reshape(heads * size, D)

    embed = take(V, D)
    stacks = [take(L, D), take(L, D, D), take(L, KV * size, D), take(L, KV * size, D), take(L, D, D), take(L, D),
              take(L, F, D), take(L, D, F), take(L, F, D)]  # fmt: skip
    state = {"model.embed_tokens.weight": embed, "lm_head.weight": embed, "model.norm.weight": take(D)}
    for i, (a, q, k, v, o, f, w1, w2, w3) in enumerate(zip(*stacks, strict=True)):
        state |= {
            f"model.layers.{i}.{n}.weight": w
            for n, w in {
                "input_layernorm": a, "self_attn.q_proj": halves(q, H), "self_attn.k_proj": halves(k, KV),
                "self_attn.v_proj": v, "self_attn.o_proj": o, "post_attention_layernorm": f, "mlp.gate_proj": w1,
                "mlp.down_proj": w2, "mlp.up_proj": w3,
            }.items()
        }  # fmt: skip
    config = LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=F, num_hidden_layers=L, num_attention_heads=H,
        num_key_value_heads=KV, max_position_embeddings=T, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    llama = LlamaForCausalLM(config)
    llama.load_state_dict(state)
    return llama


def convert(folder: str | Path) -> Path:
    """Writes model and tokenizer, once; the folder."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        model().save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    convert(sys.argv[1])
