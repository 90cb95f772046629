"""Rows of states that an engine computed, step by step, to one vector a completion.

A step of continuous batching computes a row for every running sequence, request by request in the order of asking, and
then pieces of prompts. Which sequences ran is known once all their tokens are, so steps wait for that; then each row is
checked by its token and its position. It runs no engine.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

States = dict[str, npt.NDArray[np.float32]]
"""(completions, width) of "layer20.text" and so on."""


@dataclass
class _Request:
    """A prompt's sequences, what of them the steps have shown, and the states found so far."""

    row: list[int]
    sequences: list[list[int]] | None = None
    wanted: list[int] = field(default_factory=list)
    """Of each sequence the token whose state is wanted, -1 for the prompt's last."""
    prompt: int = 0
    """Tokens of the prompt that were computed."""
    place: int = 0
    """Tokens of every sequence that were computed; those that are left have more."""
    states: dict[int, list[Any]] = field(default_factory=dict)

    def running(self) -> list[int]:
        """Sequences whose next token was computed: all but those for which it was the last."""
        return [i for i, tokens in enumerate(self.sequences or ()) if len(tokens) > self.place + 1]

    @property
    def done(self) -> bool:
        return self.prompt == len(self.row) and self.sequences is not None and not self.running()


@dataclass
class StateLog:
    """The steps of one run. `text_length` says how many of a sequence's tokens are text: the state of the last of them
    is kept (the prompt's last where there is none)."""

    layers: tuple[int, ...]
    text_length: Callable[[Sequence[int]], int]
    requests: list[_Request] = field(default_factory=list)
    steps: deque[tuple[int, list[Any]]] = field(default_factory=deque)
    first: int = 0
    """Every request before this one is done."""
    lost: bool = False
    """A row was not what it had to be: nothing is known of any state from there on."""

    def asked(self, row: list[int]) -> None:
        """A request has been added, the next in number."""
        self.requests.append(_Request(row))

    def step(self, seen: Sequence[list[npt.NDArray[Any]]]) -> None:
        """What the taps of all layers saw in one step: (state, token, position) of each row."""
        if seen and not self.lost:
            chosen = [seen[layer - 1][0].reshape(-1, seen[0][0].shape[-1]) for layer in self.layers]
            self.steps.append((len(self.requests), [seen[0][1].ravel(), seen[0][2].ravel(), *chosen]))

    def finished(self, number: int, sequences: list[list[int]]) -> None:
        """The tokens of a request's sequences, in the order of their numbers."""
        request = self.requests[number]
        request.sequences = sequences
        request.wanted = [self.text_length(tokens) - 1 for tokens in sequences]
        request.states = {layer: [None] * len(sequences) for layer in self.layers}

    def settled(self, number: int) -> bool:
        """Whether the states of a finished request are known, or never will be."""
        while not self.lost and self.steps:
            while self.first < len(self.requests) and self.requests[self.first].done:
                self.first += 1
            asked = self.requests[self.first : self.steps[0][0]]
            if any(r.sequences is None for r in asked):
                break
            self.lost = not self._place([r for r in asked if not r.done], self.steps.popleft()[1])
        return self.lost or self.requests[number].done

    def states(self, number: int) -> States | None:
        """A settled request's states; None where they were lost."""
        found = self.requests[number].states
        if any(state is None for states in found.values() for state in states):
            return None
        return {f"layer{layer}.text": np.stack(states) for layer, states in found.items()}

    def _place(self, requests: list[_Request], rows: list[Any]) -> bool:
        """Gives each row of a step to its sequence; False when one is not what it has to be."""
        token_T, position_T, *state_TD = rows
        at = 0

        def take(request: _Request, want: list[int], position: int, sequences: list[int], token: int) -> bool:
            """Whether these tokens come next, and if so, keeps the states that are wanted of them."""
            nonlocal at
            there = slice(at, at + len(want))
            if token_T[there].tolist() != want or (position_T[there] != position).any():
                return False
            for n, i in enumerate(sequences):
                if request.wanted[i] == token:
                    for layer, rows_TD in zip(self.layers, state_TD, strict=True):
                        request.states[layer][i] = rows_TD[at + n].copy()
            at += len(want)
            return True

        for r in requests:
            running = r.running()
            if r.prompt == len(r.row) and running:
                want = [(r.sequences or [])[i][r.place] for i in running]
                r.place += take(r, want, len(r.row) + r.place, running, r.place)
        for r in requests:
            begun = r.prompt
            while at < len(token_T) and r.prompt < len(r.row) and take(r, [r.row[r.prompt]], r.prompt, [], 0):
                r.prompt += 1
            if begun < r.prompt == len(r.row):
                self._prompt(r, at - 1, state_TD)
        return at == len(token_T)

    def _prompt(self, request: _Request, at: int, state_TD: list[Any]) -> None:
        """The prompt's last state to those sequences that have no text."""
        for i, wanted in enumerate(request.wanted):
            for layer, rows_TD in zip(self.layers, state_TD, strict=True):
                if wanted < 0:
                    request.states[layer][i] = rows_TD[at].copy()
