import pytest

from loratlas.analysis.multiplicity import holm


def test_it_is_statsmodels():
    # statsmodels 0.15: multipletests(p, method="holm").
    adjusted = holm([0.011, 0.02, 0.04, 0.3, 0.011])
    assert adjusted == pytest.approx([0.055, 0.06, 0.08, 0.3, 0.055])


def test_one_question_needs_no_correction_and_none_is_no_question():
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
    assert holm([None, 0.03, None]) == [None, 0.03, None]
    assert holm([None, 0.5, 0.9]) == [None, 1.0, 1.0]
