"""Our losses against TRL 1.16's and the TDPO authors' code: the numbers in values.json, made by make_values.py."""

import json
from pathlib import Path

import pytest
import torch

from trimtab.learners.token.losses import PAIR_LOSSES, kto
from trimtab.lm.tree import branch_rows
from trimtab.tensors import Head, linear_forward_kl, linear_logprobs

VALUES = json.loads((Path(__file__).parent / "values.json").read_text())
INPUTS = {k: torch.tensor(v, dtype=torch.float64) for k, v in VALUES["inputs"].items()}


def call(name: str, x: dict, **settings: float):
    loss = PAIR_LOSSES[name]
    names = loss.__code__.co_varnames[: loss.__code__.co_argcount]
    return loss(**{n: x[n] for n in names}, **settings)


@pytest.mark.parametrize("name", sorted(VALUES["trl"]))
def test_trl(name):
    got = call(name, INPUTS, **VALUES["settings"][name]).loss_B
    torch.testing.assert_close(got, torch.tensor(VALUES["trl"][name]).double(), rtol=1e-5, atol=1e-5)


def test_trl_kto():
    given = VALUES["kto"]
    logprob, ref = (torch.cat([INPUTS[f"{p}chosen_logprob_B"], INPUTS[f"{p}rejected_logprob_B"]]) for p in ("", "ref_"))
    mismatched, ref_mismatched = (torch.tensor(given[f"{p}mismatched_logprob_K"]).double() for p in ("", "ref_"))
    out = kto(logprob, ref, torch.arange(16) < 8, mismatched, ref_mismatched, **given["settings"])
    assert out.loss_B.mean().item() == pytest.approx(given["mean_loss"], abs=1e-5)


def test_tdpo_authors():
    """From logits to losses: forward KL, log-probs and both losses, through the chunked functions the trainer uses."""
    given = VALUES["tdpo"]
    spans = list(zip(given["ids"], given["starts"], given["ends"], strict=True))
    rows = branch_rows([ids[:a] for ids, a, _ in spans], [[ids[a:b]] for ids, a, b in spans], 0)
    width, T = rows.ids_BT.shape[1], len(given["ids"][0])
    source = rows.source_X // width * T + rows.source_X % width
    flat, ref_flat = (torch.tensor(given[k]).flatten(0, 1)[source] for k in ("logits", "ref_logits"))
    head = Head(torch.eye(11))
    logprob = rows.sums(linear_logprobs(flat, head, rows.target_X, chunk=2))
    ref_logprob = rows.sums(linear_logprobs(ref_flat, head, rows.target_X))
    kl = rows.sums(linear_forward_kl(flat, head, ref_flat, head, chunk=2))
    torch.testing.assert_close(logprob, torch.tensor(given["logprob"]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logprob - ref_logprob, torch.tensor(given["logratio"]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kl, torch.tensor(given["kl"]), rtol=1e-5, atol=1e-5)
    x = {
        "chosen_logprob_B": logprob[:3], "rejected_logprob_B": logprob[3:], "ref_chosen_logprob_B": ref_logprob[:3],
        "ref_rejected_logprob_B": ref_logprob[3:], "chosen_kl_B": kl[:3], "rejected_kl_B": kl[3:],
    }  # fmt: skip
    for name in ("tdpo1", "tdpo2"):
        for field, value in call(name, x)._asdict().items():
            torch.testing.assert_close(value, torch.tensor(given[name][field]), rtol=1e-5, atol=1e-5)
