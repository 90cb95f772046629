"""PROMPTS: sources, splits, and pairs derived from scored groups."""

from trimtab.data.pairs import all_pairs, best_vs_worst, right_vs_wrong, to_trl
from trimtab.data.sources import SOURCES, from_jsonl, from_parquet, from_rows, load, reasoning_gym
from trimtab.data.splits import split_by_id
from trimtab.data.tasks.shots import own_successes, with_shots

__all__ = [
    "SOURCES",
    "all_pairs",
    "best_vs_worst",
    "from_jsonl",
    "from_parquet",
    "from_rows",
    "load",
    "own_successes",
    "reasoning_gym",
    "right_vs_wrong",
    "split_by_id",
    "to_trl",
    "with_shots",
]
