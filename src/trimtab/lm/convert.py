"""GGUF files to the forms that engines read well: a Q8_0 GGUF for OpenVINO, a float16 safetensors folder for torch.

Both forms hold the same weights: the torch folder is made from the Q8_0 file. Why every matrix is rewritten (measured
23 November 2026, openvino-genai 2026.4): OpenVINO rounds the offsets of Q4_1 blocks to whole steps, which moved
SmolLM2's log-probs by 0.43 nats a token on average, and it refuses Q5_0 and Q6_K outright. It loads no engine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError
from trimtab.lm.untrusted import check_gguf


def to_q8(source: Path, target: Path) -> None:
    """Rewrites a GGUF file with every quantised or half matrix as Q8_0; vectors, template and vocabulary are kept.

    The rounding is at most half of 1/127 of a block's (32 weights) largest one. ModelError when it is no GGUF file.
    """
    gguf = gguf_package()
    check_gguf(source)
    try:
        _rewrite(gguf, source, target)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError) as e:
        raise ModelError(f"{source} is not a readable GGUF file ({type(e).__name__}: {e})") from e


def _rewrite(gguf: Any, source: Path, target: Path) -> None:
    reader, kinds = gguf.GGUFReader(source), gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    try:
        for key, field in reader.fields.items():
            if not key.startswith("GGUF.") and key != "general.architecture":
                element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(key, field.contents(), field.types[0], element)
        for tensor in reader.tensors:
            data, kind = tensor.data, tensor.tensor_type
            keep = kind in (kinds.F32, kinds.Q8_0) or tensor.shape[0] % 32  # Q8_0 needs rows of whole blocks
            if not keep:
                data, kind = gguf.quantize(gguf.dequantize(data, kind), kinds.Q8_0), kinds.Q8_0
            writer.add_tensor(tensor.name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def to_torch(source: Path, folder: Path) -> None:
    """Writes a GGUF model as a plain float16 safetensors folder with its tokenizer and chat template.

    float16 keeps a Q8_0 weight (8 bits times a float16 scale) to 2^-11 of itself; bfloat16 would lose 2^-8.
    """
    gguf = gguf_package()
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        from trimtab.lm.weights import loading_problems, not_finite
    except ImportError as e:
        raise ModelError(f"converting to torch needs the extra: pip install 'trimtab[torch]' ({e})") from e
    place, file = str(source.parent), source.name
    with _parsed_once(gguf):
        # dequantize=True: otherwise transformers 5.23 keeps the packed blocks and refuses save_pretrained
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place, gguf_file=file, dtype=torch.float16, quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )  # fmt: skip
        model, info = loaded
        if problems := loading_problems(info):
            raise ModelError(f"{source}: {'; '.join(problems)}. Fetch the file again")
        if bad := not_finite(model):
            raise ModelError(f"{source}: {bad[0]} holds values that float16 cannot")
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _parsed_once(gguf: Any) -> Iterator[None]:
    """Lets transformers parse the file and build its table of names once instead of once a use.

    Parsing 150,000 vocabulary entries is Python's work, and transformers asks for it for the configuration, the weights
    and the tokenizer, and for the table of names in every submodule. Without effect where it imports them otherwise.
    """
    names = ("GGUFReader", "get_tensor_name_map")
    before = {name: getattr(gguf, name) for name in names}
    try:
        for name in names:
            setattr(gguf, name, lru_cache(before[name]))
        yield
    finally:
        for name in names:
            setattr(gguf, name, before[name])


def gguf_package() -> Any:
    """The package gguf. ModelError that names the extra when it is not installed."""
    try:
        import gguf
    except ImportError as e:
        raise ModelError("converting needs the package gguf: pip install 'trimtab[torch]'") from e
    return gguf
