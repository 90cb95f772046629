"""PROMPTS to train and test PROMPTS, by a hash of what is asked, so that adding rows moves no old row."""

from collections.abc import Sequence

from trimtab.errors import InputError
from trimtab.types import Prompt, fingerprint


def split_by_id(prompts: Sequence[Prompt], test: float | int = 0.3, seed: int = 0) -> tuple[list[Prompt], list[Prompt]]:
    """(train, test), in the order given; prompts with the same messages are always on the same side.

    A share (0 < test < 1) puts a prompt into test when the hash of `seed` and its messages, read as a number in [0, 1),
    lies below it: the share holds on average, and a prompt's side depends on nothing else. A whole number takes that
    many prompts, those with the lowest hashes (more only if the last has duplicates).
    The hash is of the messages and not of the bare id, so that one question under two ids cannot leak into test.
    InputError when `test` is neither, or leaves no prompt to train on.
    """
    hashes = [fingerprint([seed, list(map(dict, p.messages))]) for p in prompts]
    if isinstance(test, int) and not isinstance(test, bool):
        if not 0 <= test < len(prompts):
            raise InputError(f"test={test} of {len(prompts)} prompts leaves nothing to train on; give a smaller number")
        taken = set(sorted(hashes)[:test])
    elif isinstance(test, float) and 0 < test < 1:
        taken = {h for h in hashes if int(h[:13], 16) < test * 16**13}
    else:
        raise InputError(f"test must be a share between 0 and 1 or a number of prompts, got {test!r}")
    sides: tuple[list[Prompt], list[Prompt]] = ([], [])
    for p, h in zip(prompts, hashes, strict=True):
        sides[h in taken].append(p)
    return sides
