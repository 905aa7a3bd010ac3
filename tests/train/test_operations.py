"""PyTorch's count of a row against the plan, and what a role costs against the cost model."""

import pytest
import torch

import families
from loratlas.anatomy.read import read
from loratlas.cost.plan import Estimator
from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.placement.placement import place
from loratlas.train.adapters import new_adapters
from loratlas.train.base import load_base
from loratlas.train.operations import by_role, cost_of_roles, count_and_plan, on_device, setting_of
from loratlas.train.trial import ModelRef, TrainingSpec

DATA = DataSpec(
    source="rows.jsonl", format="prompt_completion", train=8, validation=0, test=4, max_length=48
)


@pytest.fixture(scope="module", params=["gpt2", "qwen3", "mixtral", "bert", "t5"])
def trained(request, tmp_path_factory):
    """A base of one family, a placement of all its sites, and rows."""
    folder = tmp_path_factory.mktemp(request.param)
    families.write(request.param, folder)
    (folder / "rows.jsonl").write_text(families.prompt_rows(16))
    ref = ModelRef(name=str(folder))
    base = load_base(ref, dtype="fp32", base_dropout=0.0, device=torch.device("cpu"))
    data = prepare(DATA, base.tokenizer, root=folder, task=base.task)
    return base, place(read(ref.name), "all", rank=2), data.train.rows


def test_the_count_is_the_plan(trained):
    base, placement, rows = trained
    with new_adapters(base, placement, seed=0, dropout=0.0) as model:
        found = count_and_plan(base, model, placement, TrainingSpec(), rows[0], dropout=0.0)
        assert all(parameter.grad is None for parameter in model.parameters())
    assert found["unknown"] is None
    assert found["num_tokens"] == rows[0].num_read
    assert found["planned"] == pytest.approx(found["counted"], rel=1e-9)


def test_a_role_is_what_its_adapters_alone_add_to_the_bare_forward_pass(trained):
    """PyTorch counts the bare pass; the step with the role's adapters is the plan's, held above."""
    base, placement, rows = trained
    found = cost_of_roles(base, placement, TrainingSpec(), rows[:1], dropout=0.0)
    inputs = on_device(base, rows[:1])
    base.model.set_attn_implementation("eager")
    if any(site.num_experts for site in placement.anatomy.sites):
        base.model.set_experts_implementation("eager")
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        base.model(**inputs)
    estimator = Estimator(placement.anatomy, setting_of(base, TrainingSpec(), inputs, dropout=0.0))
    for role, part in zip(found, by_role(placement), strict=True):
        assert {str(a.site.role.family) for a in part.adapters} == {role["role"]}
        assert role["parameters"] == part.trainable_parameters
        more = estimator.cost(part).flops.total - counter.get_total_flops()
        assert role["flops_per_token"] == pytest.approx(more / rows[0].num_read, rel=1e-9)
        # At least weights, two averages and a gradient, all fp32.
        assert role["bytes"] is None or role["bytes"] >= 16 * role["parameters"]
    assert sum(role["parameters"] for role in found) == placement.trainable_parameters


def test_a_model_whose_attention_has_no_plain_form(base, anatomy, prepared, monkeypatch):
    """Of a fused kernel nothing would be counted: the figure is left out, with the reason."""
    placement = place(anatomy, "all", rank=2)
    monkeypatch.setattr(type(base.model), "set_attn_implementation", lambda *_: None)
    with new_adapters(base, placement, seed=0, dropout=0.0) as model:
        found = count_and_plan(
            base, model, placement, TrainingSpec(), prepared.train.rows[0], dropout=0.0
        )
    assert found["counted"] is None
    assert found["planned"] > 0
    assert found["unknown"] == (
        "ValueError: its attention has no plain form, and of a kernel nothing is counted"
    )
