import pytest

from trimtab.errors import ModelError
from trimtab.learners.run import Lora
from trimtab.learners.token.plan import plan_memory
from trimtab.lm.load import load_lm


def test_exact_parts(lm_folder):
    count = sum(p.numel() for p in load_lm(lm_folder, "float32").model.parameters())
    plan = plan_memory(lm_folder, longest_row=100, micro_tokens=50)
    assert plan.parameters == plan.trained == count
    assert (plan.weights, plan.gradients, plan.optimizer) == (4 * count, 4 * count, 8 * count)
    assert plan.total == plan.weights + plan.gradients + plan.optimizer + plan.activations + plan.head
    assert "total" in str(plan)


def test_what_saves_memory_saves_it(lm_folder):
    plain = plan_memory(lm_folder, longest_row=300)
    assert plan_memory(lm_folder, longest_row=300, checkpointing=True).activations < plain.activations / 2
    assert plan_memory(lm_folder, longest_row=300, dtype="bfloat16").weights == plain.weights // 2
    assert plan_memory(lm_folder, longest_row=300, live_reference=True).reference == plain.weights
    assert (
        plan_memory(lm_folder, longest_row=10, micro_tokens=4).activations * 30
        == plan_memory(lm_folder, longest_row=300, micro_tokens=4).activations
    )


@pytest.mark.parametrize(
    "dtype, weights, gradients, moments",
    [("float32", 4, 4, 8), ("bfloat16", 2, 2, 8), ("float32 computed in bfloat16", 6, 4, 8), ("float64", 8, 8, 16)],
)
def test_bytes_of_a_weight_in_each_precision(lm_folder, dtype, weights, gradients, moments):
    plan = plan_memory(lm_folder, longest_row=10, dtype=dtype)
    assert (plan.weights, plan.gradients, plan.optimizer) == tuple(
        n * plan.parameters for n in (weights, gradients, moments)
    )
    lora = plan_memory(lm_folder, longest_row=10, dtype="bfloat16", lora=Lora(rank=2))
    assert lora.weights == 2 * lora.parameters + 4 * lora.trained and lora.optimizer == 8 * lora.trained


def test_lora_counts_what_peft_makes(lm_folder):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_lm(lm_folder).model, LoraConfig(r=4, target_modules="all-linear"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert plan_memory(lm_folder, longest_row=10, lora=Lora(rank=4)).trained == trained


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        plan_memory(tmp_path, longest_row=10)
