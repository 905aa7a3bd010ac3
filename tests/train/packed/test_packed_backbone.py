"""A model run piece by piece gives what it gives in one go, and is itself again afterwards."""

import pytest
import torch
from packed_cases import case_of

from loratlas.train.packed.backbone import Backbone, last_modules


@pytest.fixture(scope="module", params=["gpt2", "llama", "roberta", "mixtral"])
def case(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def inputs(case):
    """One row, so that the model needs no attention of ours."""
    return {"input_ids": torch.from_numpy(case.rows[1].ids.astype("int64"))[None]}


@pytest.fixture(scope="module")
def whole(case, inputs):
    with torch.no_grad():
        return case.base.model(**inputs, output_hidden_states=True)


def run(case, inputs, *stretches):
    """Run one stretch after another; returns the last hidden states and their logits."""
    backbone = Backbone(case.base.model, case.anatomy)
    hidden = None
    with backbone.opened(), torch.no_grad():
        for first, stop in stretches:
            hidden, _ = backbone.run(inputs, first=first, stop=stop, entering=hidden)
        return hidden, backbone.head(hidden)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


STRETCHES = [
    [(0, None)],
    [(0, 1), (1, None)],
    [(0, 2), (2, None)],
    [(0, 1), (1, 2), (2, 3), (3, None)],
    [(0, 3), (3, None)],
]


@pytest.mark.parametrize("stretches", STRETCHES, ids=str)
def test_stretches_add_up_to_the_model(case, inputs, whole, stretches):
    _, logits = run(case, inputs, *stretches)
    close(logits, whole.logits)


def test_what_stands_before_each_block(case, inputs, whole):
    backbone = Backbone(case.base.model, case.anatomy)
    with backbone.opened(), torch.no_grad():
        backbone.run(inputs, taps=(0, 1, 2))
        hidden, tapped = backbone.run(inputs, stop=2, taps=(1,))
        _, all_taps = backbone.run(inputs, taps=(0, 1, 2))
    close(tapped[1], whole.hidden_states[1])
    close(hidden, whole.hidden_states[2])
    for layer, found in all_taps.items():
        close(found, whole.hidden_states[layer])


def test_other_states_go_through_the_blocks_above(case, inputs, whole):
    """What enters is what is read, not what the blocks below would have made."""
    backbone = Backbone(case.base.model, case.anatomy)
    other = torch.randn(whole.hidden_states[2].shape, generator=torch.Generator().manual_seed(0))
    with backbone.opened(), torch.no_grad():
        through, _ = backbone.run(inputs, first=2, entering=other)
        own, _ = backbone.run(inputs, first=2, entering=whole.hidden_states[2])
    assert not torch.allclose(through, own, atol=1e-2)


def test_the_head_takes_any_number_of_tokens(case, inputs, whole):
    backbone = Backbone(case.base.model, case.anatomy)
    with backbone.opened(), torch.no_grad():
        hidden, _ = backbone.run(inputs)
        close(backbone.head(hidden[:, 3:4]), whole.logits[:, 3:4])
        many = hidden.repeat(1, 9, 1)  # more tokens than the model has positions
        assert many.shape[1] > 64
        close(backbone.head(many), whole.logits.repeat(1, 9, 1))


def test_gradients_pass_through_the_pieces(gpt2):
    inputs = {"input_ids": torch.arange(7)[None]}
    backbone = Backbone(gpt2.base.model, gpt2.anatomy)
    entering = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(0))
    with backbone.opened():
        joined = entering.clone().requires_grad_()
        hidden, _ = backbone.run(inputs, first=1, entering=joined)
        hidden.square().sum().backward()
        parts = entering.clone().requires_grad_()
        middle, _ = backbone.run(inputs, first=1, stop=2, entering=parts)
        last, _ = backbone.run(inputs, first=2, entering=middle)
        last.square().sum().backward()
    close(parts.grad, joined.grad)


def test_the_model_is_itself_again(gpt2):
    model = gpt2.base.model
    backbone = Backbone(model, gpt2.anatomy)
    inputs = {"input_ids": torch.arange(7)[None]}
    with torch.no_grad():
        before = model(**inputs).logits
        with backbone.opened():
            backbone.run(inputs, stop=1)
        assert torch.equal(model(**inputs).logits, before)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_also_after_an_error_inside(gpt2):
    model = gpt2.base.model
    backbone = Backbone(model, gpt2.anatomy)

    def failing():
        with backbone.opened():
            backbone.run({"input_ids": torch.full((1, 3), 9999)})

    with pytest.raises(IndexError):
        failing()
    assert not any("forward" in module.__dict__ for module in model.modules())
    with backbone.opened(), torch.no_grad():
        hidden, _ = backbone.run({"input_ids": torch.arange(7)[None]})
    assert hidden.shape == (1, 7, 32)


def test_a_model_of_two_stacks_is_run_whole(t5):
    assert Backbone(t5.base.model, t5.anatomy).num_blocks == 0


def test_a_model_without_anatomy_is_run_whole(gpt2):
    assert Backbone(gpt2.base.model, None).num_blocks == 0


def test_a_module_that_the_pass_does_not_come_by_is_found_out(gpt2):
    backbone = Backbone(gpt2.base.model, gpt2.anatomy, torch.nn.Identity())
    with (
        backbone.opened(),
        pytest.raises(AssertionError, match="did not come by its last hidden state"),
    ):
        backbone.run({"input_ids": torch.arange(3)[None]})


@pytest.mark.parametrize("family", ["gpt2", "roberta", "t5", "mixtral"])
def test_the_last_module_is_looked_for_in_the_usual_place_first(request, family):
    case = request.getfixturevalue(family)
    model = case.base.model
    first = last_modules(model, case.anatomy)[0]
    assert first is (model.decoder if family == "t5" else model.base_model)
    assert model not in last_modules(model, case.anatomy)


def test_bart_too(tmp_path):
    case = case_of("bart", tmp_path)
    assert last_modules(case.base.model, case.anatomy)[0] is case.base.model.model
