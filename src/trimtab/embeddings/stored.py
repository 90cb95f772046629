"""The embed stage: an Embedder that keeps its vectors in a store, computes what is missing, and resumes after a kill.

GROUPS of `completions/<name>` to rows of `embeddings/<name>`, keyed by sample id. It holds no model of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError, ModelError, differences, unknown
from trimtab.progress import track
from trimtab.store import Store
from trimtab.types import Embedder, Group

Vectors = npt.NDArray[np.floating[Any]]
ONE_KEY = ("vector",)


@runtime_checkable
class ManyStates(Protocol):
    """An Embedder that gives several named vectors a completion in one pass; a call concatenates those of `keys`."""

    @property
    def keys(self) -> tuple[str, ...]: ...

    @property
    def all_keys(self) -> tuple[str, ...]: ...

    def states(self, groups: Sequence[Group]) -> list[dict[str, Any]]: ...


@runtime_checkable
class ReadStates(ManyStates, Protocol):
    """An Embedder of `layers` whose vectors a sampler of the model `name` can read while it samples."""

    @property
    def layers(self) -> tuple[int, ...]: ...

    def readable(self, name: str) -> bool: ...


@dataclass(frozen=True)
class Stored:
    """An embedder whose vectors live in `store` under `embeddings/<name>` (`embeddings/<name>/<suffix>`).

    A call computes what the table lacks, `batch` groups at a time, and answers from the table; with `embedder` None it
    only reads. `keys` chooses among the stored vectors ("layer20.last") and concatenates them in that order; by default
    the embedder's own. HiddenStates stores every layer with every pooling, so any can be read later.

    Stored as float32. float16 halves the disk, and on Qwen2.5-Coder-0.5B's layer 20 rounds by 0.4 % of a column's
    standard deviation (median; 4 % at worst, where the mean is 150 times the spread; 23 November 2026): fine for large
    jobs, so it can be chosen; it is refused where a value does not fit.
    """

    embedder: Embedder | None
    store: Store
    name: str
    keys: tuple[str, ...] | None = None
    suffix: str = ""
    batch: int = 16
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.keys is not None:
            object.__setattr__(self, "keys", tuple(self.keys))
        if self.dtype not in ("float32", "float16"):
            raise unknown("storage dtype", self.dtype, ("float32", "float16"))

    @property
    def table(self) -> str:
        """The store's table."""
        return "/".join(["embeddings", self.name, *([self.suffix] if self.suffix else [])])

    @property
    def card(self) -> dict[str, Any]:
        """The embedder's card, narrowed to `keys`: equal to the card of an embedder that gives just those vectors."""
        card = self.embedder.card if self.embedder else self.store.settings(self.table)["card"]
        return _narrow(card, self._chosen()) if card.get("kind") == "hidden_states" else card

    def __call__(self, groups: Sequence[Group]) -> list[Vectors]:
        """One (N, D) array a group, in the stored dtype.

        SettingsChanged when the table was made by another embedder; StoreError names a sample that is not stored (only
        with `embedder` None); InputError for unknown keys; and the embedder's own errors, what it finished being kept.
        """
        ids = self.store.sample_ids(self.name, groups)
        if self.embedder is not None:
            self._fill(groups, ids)
        flat = [i for row in ids for i in row]
        unique = list(dict.fromkeys(flat))
        if not unique:
            return [np.empty((0, 0), dtype=self.dtype) for _ in groups]
        columns = [self.store.tensor_rows(self.table, key, unique) for key in self._chosen()]
        vectors_XD = columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)
        if len(unique) < len(flat):
            place = {i: n for n, i in enumerate(unique)}
            vectors_XD = vectors_XD[[place[i] for i in flat]]
        return np.split(vectors_XD, np.cumsum([len(row) for row in ids])[:-1])

    @contextmanager
    def keeping(self) -> Iterator[Callable[[Group, Mapping[str, Vectors]], None]]:
        """A function that keeps a group's vectors as they are made elsewhere, by a sampler (`OpenVINO.keep`).

        They must be those that `embedder` would make, under its keys. They are written once the completions are: an
        answer that a kill took may come again with another text. SettingsChanged when the table was made by another.
        """
        held: list[tuple[list[str], Mapping[str, Vectors]]] = []
        with self.store.writer(self.table, self._settings()) as writer:

            def write() -> None:
                there = self.store.ids(f"completions/{self.name}")
                for ids, states in held:
                    if rows := [row for row, i in enumerate(ids) if i in there and i not in writer.ids]:
                        found = {k: self._packed(x[rows]) for k, x in states.items()}
                        writer.append_tensors([ids[row] for row in rows], found)
                held[:] = [(ids, states) for ids, states in held if not there.intersection(ids)]

            def keep(group: Group, states: Mapping[str, Vectors]) -> None:
                (ids,) = self.store.sample_ids(self.name, [group])
                held.append((ids, states))
                if len(held) % 64 == 0:
                    write()

            try:
                yield keep
            finally:
                write()

    def _chosen(self) -> tuple[str, ...]:
        held = self._held()
        if self.keys is None:
            if isinstance(self.embedder, ManyStates):
                return self.embedder.keys
            if len(held) > 1:
                raise InputError(
                    f"{self.store.path}: {self.table!r} holds several vectors; pass keys, any of: {', '.join(held)}"
                )
            return held
        for key in self.keys:
            if key not in held:
                raise unknown(f"key of {self.table!r}", key, held)
        return self.keys

    def _held(self) -> tuple[str, ...]:
        if self.table in self.store.tables("embeddings"):
            return tuple(self.store.settings(self.table)["keys"])
        if self.embedder is None:
            self.store.settings(self.table)  # the error that lists what there is
        return tuple(self._settings()["keys"])

    def _settings(self) -> dict[str, Any]:
        """What the table is made of. All poolings are stored whatever the embedder returns, so pooling is not."""
        if self.embedder is None:
            return self.store.settings(self.table)
        card = {k: v for k, v in self.embedder.card.items() if k != "pooling"}
        keys = self.embedder.all_keys if isinstance(self.embedder, ManyStates) else ONE_KEY
        return {"card": card, "keys": list(keys), "dtype": self.dtype}

    def _covered(self, wanted: Mapping[str, Any]) -> bool:
        """Whether the table holds what is wanted: the same embedder with these layers among its own."""
        if self.table not in self.store.tables("embeddings"):
            return False
        held = self.store.settings(self.table)
        same = {k: v for k, v in held["card"].items() if k != "layers"} == {
            k: v for k, v in wanted["card"].items() if k != "layers"
        }
        return same and held["dtype"] == wanted["dtype"] and set(self._own(wanted)) <= set(held["keys"])

    def _own(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return self.embedder.keys if isinstance(self.embedder, ManyStates) else tuple(settings["keys"])

    def _fill(self, groups: Sequence[Group], ids: Sequence[Sequence[str]]) -> None:
        wanted = self._settings()
        if self._covered(wanted):
            held = self.store.ids(self.table)
            if all(i in held for row in ids for i in row):
                return  # no lock, no model
            settings = self.store.settings(self.table)
            if settings["card"] == wanted["card"] and set(settings["keys"]) <= set(wanted["keys"]):
                wanted = settings  # begun when fewer poolings were stored: continue with those
        with self.store.writer(self.table, wanted) as writer:
            # Fixed blocks: a resumed run embeds the same groups together, so its vectors are the same to the bit.
            blocks = [range(i, min(i + self.batch, len(groups))) for i in range(0, len(groups), self.batch)]
            blocks = [b for b in blocks if any(i not in writer.ids for g in b for i in ids[g])]
            for block in track(blocks, len(blocks), f"embed {self.name}"):
                lacking = [g for g in block if any(i not in writer.ids for i in ids[g])]
                states = self._states([groups[g] for g in lacking])
                fresh: dict[str, tuple[int, int]] = {}  # an id twice in the groups is stored once
                for n, g in enumerate(lacking):
                    fresh.update({i: (n, row) for row, i in enumerate(ids[g]) if i not in writer.ids})
                writer.append_tensors(
                    list(fresh),
                    {
                        k: self._packed(np.stack([states[n][k][row] for n, row in fresh.values()]))
                        for k in wanted["keys"]
                    },
                )

    def _states(self, groups: Sequence[Group]) -> list[dict[str, Any]]:
        assert self.embedder is not None
        if isinstance(self.embedder, ManyStates):
            return self.embedder.states(groups)
        return [{ONE_KEY[0]: v} for v in self.embedder(groups)]

    def _packed(self, rows_XD: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with np.errstate(over="ignore"):
            packed = rows_XD.astype(self.dtype)
        if not np.isfinite(packed).all():
            if np.isfinite(rows_XD).all():
                raise InputError(
                    f"{self.table}: values up to {np.abs(rows_XD).max():.3g} do not fit float16; use float32"
                )
            raise ModelError(f"{self.table}: the embedder gave NaN or infinity; nothing of this batch was stored")
        return packed


def from_card(card: Mapping[str, Any], *, api_key: str | None = None, device: str | None = None) -> Embedder:
    """The embedder that a card describes, e.g. to serve a stored probe. ModelError when the model's revision is not the
    card's; InputError for a card that no built-in embedder wrote. An endpoint gets `api_key` or none: a card may be a
    stranger's, and the environment's key is not sent where it says."""
    makers: dict[str, Callable[[], Embedder]] = {
        "hidden_states": lambda: (
            _module("graph_states").GraphStates(card["model"], tuple(card["layers"]), card["pooling"])
            if card.get("engine") == "openvino"
            else _module("hidden_states").HiddenStates(
                card["model"], tuple(card["layers"]), card["pooling"], dtype=card["dtype"], device=device
            )
        ),
        "encoder": lambda: _module("encoder").Encoder(card["model"], card["overflow"], device=device),
        "endpoint": lambda: _module("endpoint").Endpoint(
            card["base_url"], card["model"], api_key or "", dimensions=card["dimensions"]
        ),
        "static": lambda: _module("static").StaticVectors(card["model"]),
    }
    kind = str(card.get("kind"))
    if kind not in makers:
        raise unknown("kind of embedder", kind, makers)
    embedder = makers[kind]()
    if embedder.card != dict(card):
        changed = "; ".join(differences(card, embedder.card, "{key} {old} then, {new} now"))
        raise ModelError(f"the embedder of the card cannot be had: {changed}; use that model, or fit again")
    return embedder


def _module(name: str) -> Any:
    import importlib

    return importlib.import_module(f"trimtab.embeddings.{name}")  # heavy libraries only when one is made


def _narrow(card: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A hidden-states card for a choice of keys; mixed poolings are named in order ("last+mean")."""
    layers = [int(k.split(".")[0].removeprefix("layer")) for k in keys]
    poolings = [k.split(".")[1] for k in keys]
    pooling = poolings[0] if len(set(poolings)) == 1 else "+".join(poolings)
    return {**card, "layers": layers, "pooling": pooling}
