"""A folder that holds a random model of Gemma-2-2B's shape, for dpo.py and fpo.py on a GPU, where speed is asked of 2B.

    python -m benchmarks.speed.shape_2b FOLDER
    python -m benchmarks dpo --device cuda --model FOLDER dtype=bfloat16 steps=8 rounds=1 batch=12
    python -m benchmarks fpo --device cuda --model FOLDER dtype=bfloat16 steps=8 rounds=1 sae_width=16384 layer=25

Time and memory do not depend on the values of the weights. The tokenizer is SmolLM2's (or --tokenizer, a folder that
has one): its tokens are a part of the vocabulary of 256,000, which the head computes in full all the same.
"""

import argparse

import torch


def main(folder: str, tokenizer_name: str, layers: int, D: int) -> None:
    from transformers import AutoModelForCausalLM, Gemma2Config

    from trimtab.lm.load import default_device, load_tokenizer

    tokenizer = load_tokenizer(tokenizer_name)
    config = Gemma2Config(
        vocab_size=256_000, hidden_size=D, intermediate_size=4 * D,
        num_hidden_layers=layers,
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--tokenizer", default="smollm2-135m")
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--hidden", type=int, default=2304)
    args = parser.parse_args()
    main(args.folder, args.tokenizer, args.layers, args.hidden)
