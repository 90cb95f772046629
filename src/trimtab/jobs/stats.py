"""Result files of any tool to a paired comparison by prompt id, and to its picture."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.data.results import Results, load_results
from trimtab.errors import InputError
from trimtab.evaluation.anytime import PLANNED
from trimtab.evaluation.comparison import SIMULTANEOUS, Comparison, compare_values
from trimtab.evaluation.pages.interval_plot import interval_plot


def stats(
    files: Sequence[str], *, value: str = "", id: str = "", filter: str = "", split: str = "test",
    kind: str = SIMULTANEOUS, planned: int = PLANNED, plot: str = "", draws: int = 10_000, seed: int = 0,
) -> Comparison:  # fmt: skip
    """Files or run directories compared by prompt id; see `load_results` for what is read, `compare_values` for kinds.

    A file may be given a name: `base=logs/a.eval`. `plot` writes the ranked intervals as SVG. InputError for fewer than
    two systems, for files without common prompts, and for an id under which two files have other prompts.
    """
    found = [r for spec in files for r in _named(spec, value=value, id=id, filter=filter, split=split)]
    if len(found) < 2:
        raise InputError("give two or more files of results, or one table of trimtab with several rows")
    if twice := [name for name, times in Counter(r.name for r in found).items() if times > 1]:
        raise InputError(f"two systems are called {twice[0]!r}; give them names: base={files[0]}")
    _same_prompts(found)
    made = compare_values({r.name: r.values for r in found}, kind=kind, planned=planned, draws=draws, seed=seed)
    notes = [f"{r.name}: {n}" for r in found for n in r.notes]
    if len(read := {r.of for r in found}) > 1:
        notes.append(f"different values are compared: {', '.join(f'{r.name}: {r.of}' for r in found)}")
    elif read:
        notes.append(f"value: {read.pop()}")
    if most := max(len(v) for r in found for v in r.values.values()) - 1:
        notes.append(f"up to {most + 1} samples a prompt: averaged, a prompt counts once")
    made = replace(made, notes=(*made.notes, *notes))
    if plot:
        try:
            Path(plot).write_text(interval_plot(made), encoding="utf-8")
        except OSError as e:
            raise InputError(f"{plot}: cannot be written ({e.strerror or e}); give --plot another place") from e
    return made


def _named(spec: str, **read: str) -> list[Results]:
    """Results of a file, under the name that stands before "=", or else the file's own."""
    name, _, path = spec.partition("=")
    if not path or Path(spec).exists() or "/" in name:
        name, path = "", spec
    found = load_results(path, **read)
    if not name:
        return found
    return [replace(r, name=name if len(found) == 1 else f"{name} {r.name}") for r in found]


def _same_prompts(found: Sequence[Results]) -> None:
    """Ids such as 1, 2, 3 join anything; so where two files hold the prompts' texts, these must be the same."""
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            other = next((p for p, text in a.texts.items() if b.texts.get(p, text) != text), None)
            if other is not None:
                raise InputError(
                    f"prompt {other!r} is another text in {a.name} than in {b.name}: these are not the same prompts"
                )
