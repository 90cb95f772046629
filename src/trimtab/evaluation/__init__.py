"""What did each lever buy? Numbers with intervals beside their nulls."""

from trimtab.evaluation.choosing import NO_EXTRACTOR, choices, strategies
from trimtab.evaluation.curves import (
    Figure,
    reliability,
    reward_against_beta,
    reward_against_k,
    reward_against_layer,
    reward_against_prompts,
    value_against_pass_rate,
)
from trimtab.evaluation.metrics import (
    Interval,
    expected_max,
    expected_reward,
    mean_interval,
    paired_bootstrap,
    pass_at_k,
)
from trimtab.evaluation.pages.report import write_report
from trimtab.evaluation.run import compare, evaluate
from trimtab.evaluation.table import Row, Table, tabulate

__all__ = [
    "NO_EXTRACTOR",
    "Figure",
    "Interval",
    "Row",
    "Table",
    "choices",
    "compare",
    "evaluate",
    "expected_max",
    "expected_reward",
    "mean_interval",
    "paired_bootstrap",
    "pass_at_k",
    "reliability",
    "reward_against_beta",
    "reward_against_k",
    "reward_against_layer",
    "reward_against_prompts",
    "strategies",
    "tabulate",
    "value_against_pass_rate",
    "write_report",
]
