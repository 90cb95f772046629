"""Long work says how far it is: a bar on a terminal, elsewhere a line on standard error every quarter of a minute.

Work of less than two seconds says nothing. Of nested work only the innermost speaks.
"""

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trimtab.terminal import visible

T = TypeVar("T")
AFTER_S = 2.0
EVERY_S = 15.0
LIBRARIES = r"(torch|transformers|tokenizers|accelerate|peft|sentence_transformers|huggingface_hub|sae_lens)\b"
_OPEN: list["Work"] = []
"""Work that is under way, innermost last."""


@dataclass
class Work:
    """A count of what is done; `total` 0 where nobody knows how much there is."""

    label: str
    total: int = 0
    done: int = 0
    begun: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """Where it stands: count, rate and the time left at that rate."""
        spent = time.monotonic() - self.begun
        if not self.total:
            return f"{self.label} ... {_span(spent)}" if spent >= 1 else f"{self.label} ..."
        text = f"{self.label}: {self.done} of {self.total}, {_span(spent)}"
        if 0 < self.done < self.total:
            rate = self.done / spent
            speed = f"{rate:.1f} a second" if rate >= 1 else f"{1 / rate:.1f} s each"
            text += f" ({speed}, about {_span((self.total - self.done) / rate)} left)"
        return text


def track(
    items: Iterable[T], total: int, label: str, *, after_s: float = AFTER_S, every_s: float = EVERY_S
) -> Iterator[T]:
    """Yields `items` and shows how many have been used, once they have taken `after_s` seconds."""
    with working(label, total, after_s=after_s, every_s=every_s) as work:
        for item in items:
            yield item
            work.done += 1


@contextmanager
def working(label: str, total: int = 0, *, after_s: float = AFTER_S, every_s: float = EVERY_S) -> Iterator[Work]:
    """Shows that `label` is under way once it has taken `after_s` seconds; the body adds to `done` of what it is given.

    A bar on a terminal, else a line every `every_s` seconds. Work without a `total` says one line on a terminal.
    """
    work, over = Work(label, total), threading.Event()
    show = _bar if sys.stderr.isatty() else _lines
    shower = threading.Thread(target=show, args=(work, over, after_s, every_s), daemon=True)
    _OPEN.append(work)
    shower.start()
    try:
        yield work
    finally:
        over.set()
        shower.join()
        _OPEN.remove(work)


def _lines(work: Work, over: threading.Event, after_s: float, every_s: float) -> None:
    wait, said = after_s, False
    while not over.wait(wait):
        if _OPEN[-1] is work:
            _say(work.line())
            said = True
        wait = every_s
    if said and work.total:
        _say(work.line())


def _bar(work: Work, over: threading.Event, after_s: float, every_s: float) -> None:
    if over.wait(after_s) or _OPEN[-1] is not work:  # two bars would draw over each other
        return
    if not work.total:
        _say(work.line())
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: list[Any] = [
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]  # fmt: skip
    with Progress(*columns, console=Console(file=sys.__stderr__), transient=True) as progress:
        task = progress.add_task(visible(work.label), total=work.total)
        while not over.wait(0.2):
            progress.update(task, completed=work.done, description=visible(work.label))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def quiet_libraries() -> None:
    """Bars and advice of other libraries stay out of a command's output: ours say what a user needs to know."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # or tokenizers warns of every process that we start
    if not sys.warnoptions:  # python -W ... and PYTHONWARNINGS are the user's word
        os.environ["PYTHONWARNINGS"] = "ignore::FutureWarning,ignore::DeprecationWarning"  # for workers that we start
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=LIBRARIES)
    warnings.formatwarning = _format_warning


def _format_warning(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
    """One line for people; where it comes from only when it is not ours."""
    if issubclass(category, UserWarning):
        return f"trimtab: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"
