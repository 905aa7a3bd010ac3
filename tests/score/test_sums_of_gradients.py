"""What scorers of gradients keep of all sites, and what becomes of that where memory is short."""

from dataclasses import replace

import numpy as np
import pytest
from gradient_cases import rows_of, subject_of

import anatomies
from loratlas.placement.placement import LoraSpec
from loratlas.score import resampling
from loratlas.score.lora_probe import LoraProbe
from loratlas.score.resampling import MOST_BYTES, MeanGradient
from loratlas.score.scorer import Subject
from loratlas.score.spectrum import GradientSpectrum
from loratlas.train.trial import TrainingSpec
from tiny_models import fresh

SCORERS = [GradientSpectrum(), LoraProbe()]
# Of the shape of Llama-3.1-8B: 224 sites inside the blocks.
LARGE = anatomies.llama(4096, 32, key_value=1024, inner=14336, vocabulary=128_256)


def kept_of(scorer, rank, groups):
    """Return the bytes of a method at every site of the large shape, with no model at hand."""
    subject = Subject(
        base=None,
        anatomy=LARGE,
        sites=tuple(site for site in LARGE.sites if site.in_block),
        rows=(),
        lora=LoraSpec(rank=rank),
        training=TrainingSpec(),
        seed=0,
        max_rank=4 * rank,
    )
    return scorer._kept(subject).num_bytes(groups)


def test_a_large_model_is_scored_with_all_groups_up_to_the_rank_that_the_limit_names():
    assert kept_of(GradientSpectrum(), 16, 4) / 2**30 == pytest.approx(3.9, abs=0.05)
    assert kept_of(GradientSpectrum(), 16, 4) <= MOST_BYTES < kept_of(GradientSpectrum(), 17, 4)
    assert kept_of(LoraProbe(), 64, 8) <= MOST_BYTES


@pytest.fixture
def allocated(monkeypatch):
    """The numbers that are kept by group, site by site."""
    found, real = [], MeanGradient.__init__

    def noted(self, *given, **more):
        real(self, *given, **more)
        found.append(self._sums.numel())

    monkeypatch.setattr(MeanGradient, "__init__", noted)
    return found


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)
def test_what_is_counted_is_what_is_kept(scorer, allocated):
    subject = subject_of(fresh("mixtral"), rows=rows_of(9))
    scorer.measure(subject)
    assert sum(allocated) == scorer.most_groups * scorer._kept(subject).by_group


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)
def test_where_memory_is_short_fewer_groups_are_kept(scorer, allocated, monkeypatch):
    subject = subject_of(fresh("llama"), rows=rows_of(9))
    plain, kept = scorer.measure(subject), scorer._kept(subject)
    allocated.clear()
    monkeypatch.setattr(resampling, "MOST_BYTES", kept.num_bytes(2))
    assert scorer.why_not(subject) is None
    found = scorer.measure(subject)
    assert sum(allocated) == 2 * kept.by_group
    # Values are those of all rows, summed in another order.
    np.testing.assert_allclose(found.values, plain.values, rtol=1e-4)
    assert found.notes[-1].startswith("Standard errors are from 2 groups of rows: ")
    assert not any(note.startswith("Standard errors are from") for note in plain.notes)


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)
def test_what_does_not_fit_is_refused_before_anything_is_kept(scorer, allocated, monkeypatch):
    subject = replace(subject_of(fresh("llama")), max_rank=24)
    monkeypatch.setattr(resampling, "MOST_BYTES", scorer._kept(subject).num_bytes(2) - 1)
    lower = {
        "gradient_spectrum": "the number of ranks, 24, which goes with the study's",
        "lora_probe": "the study's rank, 4",
    }
    said = scorer.why_not(subject)
    assert said.startswith("its sums of gradients at 21 sites would take ")
    assert said.endswith(f"is the most; score fewer sites, or lower {lower[scorer.name]}")
    assert not allocated
