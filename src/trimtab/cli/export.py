"""`trimtab export`: a trained folder, an adapter or any model name to files that other programs load.

trimtab export runs/dpo --out merged                      for transformers, vLLM and llama.cpp's converter
trimtab export runs/dpo --out merged --gguf q8_0          and merged/model.gguf for llama.cpp and OpenVINO
"""

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import Json, emit


def export(
    run: Annotated[str, typer.Argument(help="What `trimtab train` wrote, an adapter's folder, or a model name.")],
    out: Annotated[str, typer.Option("--out", "-o", help="New folder for the model.")],
    dtype: Annotated[str, typer.Option("--dtype", help="float32 (exact), bfloat16 or float16.")] = "float32",
    gguf: Annotated[str, typer.Option("--gguf", help="Write model.gguf too, matrices as f32, f16 or q8_0.")] = "",
    json: Json = False,
) -> None:
    """Write a model as a plain folder, adapters merged, and as a GGUF file if asked."""
    from trimtab.lm import export as files

    folder = files.export_model(run, out, dtype, gguf)
    written = sorted(p.name for p in folder.iterdir())
    size = sum(p.stat().st_size for p in Path(folder).iterdir())
    emit({"out": str(folder), "files": written, "bytes": size}, f"{folder}: {', '.join(written)}", json)
