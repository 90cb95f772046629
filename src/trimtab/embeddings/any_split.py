"""An Embedder that reads a store's vectors whichever split a group belongs to, and may embed what no split holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.embeddings.stored import Stored, Vectors
from trimtab.errors import InputError
from trimtab.types import Embedder, Group


@dataclass(frozen=True)
class AnySplit:
    """The stored vectors of whichever split a group's prompt belongs to; `other` embeds what is in none."""

    parts: tuple[Stored, ...]
    other: Embedder | None = None

    @property
    def card(self) -> dict[str, Any]:
        """The first part's, or that of `other`."""
        return (self.parts[0] if self.parts else self.other).card  # pyright: ignore[reportOptionalMemberAccess]

    def __call__(self, groups: Sequence[Group]) -> list[Vectors]:
        """One (N, D) array a group. InputError names a prompt whose completions no split holds, without `other`."""
        out: dict[int, Any] = {}
        for part in self.parts:  # one call a table: it is read once
            ids = part.store.ids(part.table)
            sample_ids = part.store.sample_ids(part.name, groups)
            mine = [i for i, row in enumerate(sample_ids) if i not in out and ids.issuperset(row)]
            if mine:
                out |= zip(mine, part([groups[i] for i in mine]), strict=True)
        rest = [i for i in range(len(groups)) if i not in out]
        if rest:
            if self.other is None:
                name = groups[rest[0]].prompt.id
                raise InputError(
                    f"prompt {name!r}: its completions have no stored states; run `trimtab embed`, or give --model"
                )
            out |= zip(rest, self.other([groups[i] for i in rest]), strict=True)
        return [out[i] for i in range(len(groups))]
