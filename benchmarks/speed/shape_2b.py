"""A folder that holds a random model of Gemma-2-2B's shape, for dpo.py and fpo.py on a GPU, where speed is asked of 2B.

    python benchmarks/speed/shape_2b.py FOLDER
    export MODEL=FOLDER DEVICE=cuda DTYPE=bfloat16 STEPS=8 ROUNDS=1
    BATCH=12 python benchmarks/speed/dpo.py
    BATCH=8 SAE_WIDTH=16384 LAYER=25 python benchmarks/speed/fpo.py

Time and memory do not depend on the values of the weights. The tokenizer is SmolLM2's (or TOKENIZER, a folder that
has one): its tokens are a part of the vocabulary of 256,000, which the head computes in full all the same. LAYERS and
HIDDEN in the environment make it smaller.
"""

import os
import sys

import torch


def main(folder: str) -> None:
    from transformers import AutoModelForCausalLM, Gemma2Config

    from trimtab.lm.load import default_device, load_tokenizer

    tokenizer = load_tokenizer(os.environ.get("TOKENIZER", "smollm2-135m"))
    D = int(os.environ.get("HIDDEN") or 2304)
    config = Gemma2Config(
        vocab_size=256_000, hidden_size=D, intermediate_size=4 * D,
        num_hidden_layers=int(os.environ.get("LAYERS") or 26),
        num_attention_heads=8, num_key_value_heads=4, head_dim=256, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(default_device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()) / 1e9:.2f} billion parameters")


if __name__ == "__main__":
    main(sys.argv[1])
