"""Heads that are told what to read give the logits that they give everywhere."""

import pytest
import torch
from gradient_cases import subject_of
from test_capture import state_of

from loratlas.score.scored_head import ScoredHead
from loratlas.score.stand_ins import inputs_of_length
from tiny_models import fresh

TASKS = {
    "gpt2": "causal",
    "llama": "causal",
    "mixtral": "causal",
    "bert": "masked",
    "t5": "seq2seq",
}
PLACES = torch.tensor([9, 0, 4, 4])


@pytest.mark.parametrize("family", TASKS)
def test_logits_are_those_of_the_places(family):
    subject = subject_of(fresh(family), task=TASKS[family])
    head = ScoredHead(subject)
    assert head.is_short
    inputs = inputs_of_length(subject, num_rows=2, num_tokens=6)
    whole = subject.base.model(**inputs).logits.flatten(0, 1)
    with head.opened():
        torch.testing.assert_close(head.logits(inputs, PLACES), whole[PLACES])


def test_no_more_logits_are_computed_than_are_asked_for():
    subject = subject_of(fresh("llama"))
    head, shapes = ScoredHead(subject), []
    subject.base.model.lm_head.register_forward_hook(lambda *given: shapes.append(given[2].shape))
    with head.opened():
        head.logits(inputs_of_length(subject, num_rows=2, num_tokens=6), PLACES)
    assert shapes == [(1, 4, 64)]


def test_a_head_that_is_itself_a_site_reads_everything():
    assert not ScoredHead(subject_of(fresh("llama"), paths=["lm_head"])).is_short


def test_a_model_whose_logits_depend_on_each_other_reads_everything():
    model = fresh("llama")
    subject = subject_of(model)
    model.lm_head.register_forward_hook(lambda _, __, output: output - output.mean(1, keepdim=True))
    head = ScoredHead(subject)
    assert not head.is_short
    inputs = inputs_of_length(subject, num_rows=2, num_tokens=6)
    with head.opened():
        whole = model(**inputs).logits.flatten(0, 1)
        torch.testing.assert_close(head.logits(inputs, PLACES), whole[PLACES])


def test_a_head_that_adds_a_dimension_reads_everything():
    model = fresh("llama")
    subject = subject_of(model)
    model.lm_head.register_forward_hook(lambda _, __, output: output.repeat(1, 2, 1))
    assert not ScoredHead(subject).is_short


def test_the_head_is_given_back_as_it_was():
    model = fresh("gpt2")
    subject = subject_of(model)
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt), ScoredHead(subject).opened():
        raise KeyboardInterrupt
    assert state_of(model) == before
