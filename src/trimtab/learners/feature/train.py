"""TEXTS to a sparse autoencoder of one layer: SAELens's trainer on hidden states that the store streams.

The states are computed once and kept in the store, so another width or k costs no forward pass. Training itself is
`sae_lens.SAETrainer`'s (an extra: `pip install sae-lens`), the files it leaves are SAELens's own, and the SAE comes
back with a card and the same check that every other SAE gets.
"""

import contextlib
import io
import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError, ModelError, refuse_changed
from trimtab.json_file import NUMBER, Kinds, read_json
from trimtab.learners.feature.check import SAECheck, check_sae
from trimtab.learners.feature.sae import SAE, load_sae
from trimtab.learners.feature.sae_files import CFG, hook_of
from trimtab.learners.feature.states import Rows, hidden_rows, token_rows
from trimtab.learners.run import one_writer
from trimtab.lm.load import LM
from trimtab.progress import track
from trimtab.publish import publish_text
from trimtab.store import Store
from trimtab.types import fingerprint

CARD = "sae.json"
_KINDS: Kinds = {
    "settings": dict, "states": int, "check": dict, "check.layer": int, "check.tokens": int, "check.elsewhere": dict,
    **{f"check.{k}": NUMBER for k in ("fvu", "l0", "dead")}, "check.readings?": dict, "check.problems?": list,
    "check.warnings?": list,
}  # fmt: skip


def read_card(folder: str | Path) -> dict[str, Any]:
    """The card of an SAE that `train_sae` made: its settings, its states, its check. InputError when it is damaged."""
    return read_json(Path(folder) / CARD, "an SAE's card", _KINDS, do=f"delete {CARD} and train again")


def check_of(folder: str | Path) -> SAECheck:
    """The check on held-out texts that `train_sae` left in its card. InputError when it is damaged."""
    check = read_card(folder)["check"]
    figures = [x for k in ("elsewhere", "readings") for x in check.get(k, {}).values()]
    if not all(type(x) in NUMBER for x in figures) or any(type(k) is not str for k in check.get("problems", [])):
        raise InputError(f"{Path(folder) / CARD}: its check holds what is no figure; delete it and train again")
    known = {f.name for f in fields(SAECheck)}
    return SAECheck(**{k: v for k, v in check.items() if k in known})


@one_writer
def train_sae(
    data: Sequence[Any], lm: LM, *, layer: int, out: str | Path, width: int | None = None, k: int = 32,
    samples: int | None = None, batch_size: int = 1024, learning_rate: float = 5e-4, held_out: float = 0.1,
    seed: int = 0, budget: int = 2048, store: str | Path | None = None,
) -> SAE:  # fmt: skip
    """Trains a TopK SAE on the hidden states of `data` (pairs, groups or texts) at `layer` and checks it.

    `out` gets SAELens's folder, `sae.json` (settings and the check on the share `held_out` of the data, never trained
    on) and, unless `store` names another place, the states. The same call returns at once when it is done;
    SettingsChanged when `out` holds another SAE. `width` is 4 times the hidden size by default, `samples` the states
    trained on, repeats included (20 epochs by default).

    ModelError without sae-lens. The check's problems are in the card and are not raised: judge them.
    """
    out = Path(out)
    size = lm.model.config.get_text_config().hidden_size
    rows = token_rows(lm.tokenizer, data)
    if len(rows) < 10:
        raise InputError(f"{len(rows)} texts are too few to train an SAE on")
    settings = json.loads(json.dumps({
        "model": lm.id, "layer": layer, "width": width or 4 * size, "k": k, "samples": samples, "seed": seed,
        "batch_size": batch_size, "learning_rate": learning_rate, "held_out": held_out, "data": fingerprint(rows),
    }))  # fmt: skip
    if (out / CARD).is_file():
        refuse_changed(f"{out} holds an SAE", read_card(out)["settings"], settings)
        return load_sae(out)
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = max(1, round(len(rows) * held_out))
    kept = Store(store or out / "store")
    table, count = store_states([rows[i] for i in order[cut:]], lm, layer, kept, budget=budget)
    if count < max(settings["width"], batch_size):
        raise InputError(f"{count:,} states are too few for {settings['width']:,} features: give more text")
    batches = stream_states(kept, table, batch_size, seed)
    meta = {"model_name": lm.name, "hook_name": hook_of(layer)}
    theirs = _fit(batches, size, settings, samples or 20 * count, meta)
    out.mkdir(parents=True, exist_ok=True)
    theirs.save_model(str(out))
    held = [data[i] for i in order[:cut]]
    result = check_sae(load_sae(out), lm, held, layer=layer, budget=budget)
    cfg = read_json(out / CFG, "SAELens's configuration", {"metadata": dict})
    cfg["metadata"]["trimtab"] = {"l0": result.l0, "fvu": result.fvu, "states": count}
    publish_text(out / CFG, json.dumps(cfg, indent=2))
    card = {"settings": settings, "states": count, "check": result.plain()}
    publish_text(out / CARD, json.dumps(card, indent=2))
    return load_sae(out)


def store_states(rows: Rows, lm: LM, layer: int, store: Store, *, budget: int = 2048) -> tuple[str, int]:
    """Writes the hidden states of the completions' tokens at `layer` to a tensor table; its name and its rows.

    One float32 row a token (float16 overflows on the outliers of some models), keyed by the texts of its chunk and its
    place there. Continues where it was stopped.
    """
    settings = {"model": lm.id, "dtype": str(lm.model.dtype).removeprefix("torch."), "layer": layer}
    table = f"embeddings/states-{fingerprint([settings, rows])[:12]}"
    with store.writer(table, settings) as writer:
        chunks = [rows[i : i + 32] for i in range(0, len(rows), 32)]
        for chunk in track(chunks, len(chunks), "hidden states"):
            name = fingerprint(chunk)[:24]
            if f"{name}{0:08x}" in writer.ids:
                continue
            parts = [states[layer].float().cpu().numpy() for states in hidden_rows(lm, chunk, [layer], budget=budget)]
            array = np.concatenate(parts)
            writer.append_tensors([f"{name}{i:08x}" for i in range(len(array))], {"states": array})
        return table, len(writer.ids)


def stream_states(store: Store, table: str, batch: int, seed: int, *, buffer: int = 2**16) -> Iterator[Tensor]:
    """Endless batches (batch, D) of a table's states, shuffled within a buffer of so many rows."""
    rng = np.random.default_rng(seed)
    kept: list[Any] = []
    while True:
        for _, shard in store.tensors(table, ("states",)):
            kept.append(shard["states"])
            if sum(map(len, kept)) >= buffer:
                kept = yield from _shuffled(kept, batch, rng)
        kept = yield from _shuffled(kept, batch, rng)


def _shuffled(kept: list[Any], batch: int, rng: np.random.Generator) -> Generator[Tensor, None, list[Any]]:
    block = np.concatenate(kept)
    block = block[rng.permutation(len(block))]
    full = len(block) // batch * batch
    for at in range(0, full, batch):
        yield torch.from_numpy(block[at : at + batch])
    return [block[full:]]


def _fit(
    batches: Iterator[Tensor], size: int, settings: Mapping[str, Any], samples: int, meta: Mapping[str, str]
) -> Any:
    os.environ.setdefault("WANDB_MODE", "disabled")  # it is imported there whether wanted or not
    try:
        from sae_lens import LoggingConfig, TopKTrainingSAE, TopKTrainingSAEConfig  # pyright: ignore
        from sae_lens.config import SAETrainerConfig  # pyright: ignore
        from sae_lens.saes.sae import SAEMetadata  # pyright: ignore
        from sae_lens.training.sae_trainer import SAETrainer  # pyright: ignore
    except ImportError as e:
        raise ModelError(f"training an SAE needs SAELens: pip install sae-lens ({e})") from e
    steps = max(1, samples // settings["batch_size"])
    with torch.random.fork_rng(), contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        torch.manual_seed(settings["seed"])
        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(
                d_in=size, d_sae=settings["width"], k=settings["k"], metadata=SAEMetadata(**meta),
                normalize_activations="expected_average_only_in",
            )
        )  # fmt: skip
        config = SAETrainerConfig(
            total_training_samples=samples, train_batch_size_samples=settings["batch_size"],
            lr=settings["learning_rate"], lr_end=0.0, lr_warm_up_steps=steps // 20, lr_decay_steps=steps // 5,
            dead_feature_window=max(20, steps // 10), n_batches_for_norm_estimate=8,
            logger=LoggingConfig(log_to_wandb=False),
        )  # fmt: skip
        return SAETrainer(config, sae, batches).fit()
