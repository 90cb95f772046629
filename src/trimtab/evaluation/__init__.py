"""What did each lever buy? Numbers with intervals beside their nulls."""

from trimtab.evaluation.choosing import NO_EXTRACTOR, choices, strategies
from trimtab.evaluation.comparison import Comparison, compare_values
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
from trimtab.evaluation.pages.interval_plot import interval_plot
from trimtab.evaluation.pages.report import write_report
from trimtab.evaluation.run import compare, evaluate
from trimtab.evaluation.table import Row, Table, tabulate

__all__ = [
    "NO_EXTRACTOR",
    "Comparison",
    "Figure",
    "Interval",
    "Row",
    "Table",
    "choices",
    "compare",
    "compare_values",
    "evaluate",
    "expected_max",
    "expected_reward",
    "interval_plot",
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
