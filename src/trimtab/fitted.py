"""A fitted thing's folder: one safetensors file and one JSON card that holds the file's SHA-256, published together.

Loading compares the two, so weights of another fit, a cut file and a flipped bit are errors that name the folder.
Probes, rerankers, routers and pairwise probes are saved here; what their tensors mean is theirs.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.json_file import Kinds, read_json
from trimtab.publish import publish, publish_folder, publish_text, recover, reporting, sha256

Tensors = Mapping[str, npt.NDArray[Any]]
SUM = "tensors_sha256"
"""The card's key for the hash of its tensors' file. Cards of before November 2026 have none and are not compared."""


def save_fitted(folder: Path, tensors: Tensors, card: Mapping[str, Any], file: str, card_file: str) -> Path:
    """Writes `file` and `card_file` so that a killed run leaves the old pair or the new one; returns `folder`.

    The folder is renamed into place. One that holds other files too keeps them: there the card is written last, and
    loading refuses the pair of a run that was killed in between.
    """
    from safetensors.numpy import save_file

    arrays = {k: np.asarray(v, order="C") for k, v in tensors.items()}  # ascontiguousarray would give a scalar an axis

    def write(into: Path) -> None:
        publish(into / file, partial(save_file, arrays))
        whole = {**card, SUM: sha256(into / file)}
        publish_text(into / card_file, json.dumps(whole, indent=2, ensure_ascii=False, default=str) + "\n")

    with reporting(folder):
        others = folder.is_dir() and {f.name for f in folder.iterdir()} - {file, card_file}
    write(folder) if others else publish_folder(folder, write)
    return folder


def load_fitted(
    folder: Path, file: str, card_file: str, *, what: str, kind: str = "", needs: Kinds | None = None
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The card and the tensors of `folder`; InputError when they are missing, damaged, not a pair, or not a `what`
    (the card's "kind", where `kind` is given; the kinds of value that it `needs`)."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    recover(folder)
    try:
        card = read_json(folder / card_file, f"the card of a {what}", needs, do="fit it again")
        if kind and card.get("kind", kind) != kind:
            raise ValueError(f"its card says {card['kind']!r}")
        data = (folder / file).read_bytes()
        if card.pop(SUM, None) not in (None, hashlib.sha256(data).hexdigest()):
            raise ValueError(f"{file} is not the one that {card_file} was written with (damaged, or another fit's)")
        return card, load(data)
    except (InputError, OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as e:
        raise InputError(f"{folder} holds no readable {what} ({file}, {card_file}): {e}; fit it again") from e
