"""What is refused before a method runs, what may leave it, and what the table says of it."""

import json

import numpy as np
import pytest
from scipy import stats
from scored_subjects import Said, subject_of

from loratlas.allocate.table import ScoreTable
from loratlas.errors import RequestError, TrialError
from loratlas.score.run import score
from loratlas.score.scorer import Found, Needs


@pytest.fixture
def subject(base, anatomy, prepared):
    return subject_of(base, anatomy, prepared.train.rows[:6])


def ascending(subject):
    return np.arange(1.0, 1 + len(subject.sites))


def noise(seed, subject):
    return np.random.default_rng(seed).normal(size=len(subject.sites))


def test_a_table_holds_what_was_found(subject):
    count = len(subject.sites)
    values = ascending(subject)
    stderr = np.full(count, 0.5)
    stderr[1] = np.nan
    found = Found(
        values=values,
        stderr=stderr,
        curves=[np.array([2.0, 1.0]), *[None] * (count - 1)],
        halves=np.stack([values, 2 * values]),
        num_tokens=np.full(count, 7),
        expert_tokens=[[4, 3], *[None] * (count - 1)],
        slices=[{"q": 1.0, "k": 0.5}, *[None] * (count - 1)],
        num_forwards=6,
        num_backwards=6,
        notes=("one thing",),
    )
    table = score(Said(found), subject)
    assert [each.path for each in table.scores] == [site.path for site in subject.sites]
    first, second = table.scores[:2]
    assert (first.value, first.stderr, first.curve) == (1, 0.5, (2, 1))
    assert (first.num_tokens, first.slices) == (7, {"q": 1.0, "k": 0.5})
    assert (first.expert_tokens, first.group) == ((4, 3), None)
    assert (second.stderr, second.curve, second.slices) == (None, None, None)
    assert second.expert_tokens is None
    assert table.agreement == pytest.approx(1)
    assert table.notes == ("one thing",)
    assert (table.cost.num_forwards, table.cost.num_backwards) == (6, 6)
    assert table.cost.seconds > 0
    assert table.settings["rows"] == 6
    assert table.settings["base_digest"] == subject.base.digest
    assert (table.model, table.anatomy_digest) == (subject.anatomy.model, subject.anatomy.digest)
    text = json.dumps(table.to_json(), allow_nan=False)
    assert ScoreTable.from_json(json.loads(text)).to_json() == table.to_json()


def test_memory_is_what_the_method_takes(subject):
    def hungry(given):
        held = np.ones(60 * 2**20, dtype=np.uint8)
        assert held[-1] == 1
        return ascending(given)

    peak = score(Said(hungry), subject).cost.peak_memory_bytes
    assert 50 * 2**20 < peak < 150 * 2**20


def test_halves_that_agree_by_chance_are_noted(subject):
    halves = np.stack([noise(1, subject), noise(5, subject)])
    table = score(Said(Found(values=halves.mean(axis=0), halves=halves)), subject)
    assert table.agreement == pytest.approx(stats.kendalltau(*halves).statistic)
    (reason,) = table.uninformative
    assert reason.startswith("two halves of the rows agree no more than by chance")
    assert table.notes == (f"uninformative: {reason}",)


def test_one_value_for_all_sites(subject):
    same = np.ones(len(subject.sites))
    table = score(Said(Found(values=same, halves=np.stack([same, same]))), subject)
    assert table.agreement is None
    assert table.uninformative == ("every site has the same value",)
    assert table.notes == ("uninformative: every site has the same value",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["values", "halves", "curves", "slices"])
def test_what_is_no_number_does_not_leave(subject, value, where):
    count = len(subject.sites)
    parts = {"values": ascending(subject), "halves": np.ones((2, count))}
    if where == "curves":
        parts["curves"] = [None, None, np.array([1.0, value]), *[None] * (count - 3)]
    elif where == "slices":
        parts["slices"] = [None, None, {"q": value}, *[None] * (count - 3)]
    else:
        parts[where][..., 2] = value
    path = subject.sites[2].path
    with pytest.raises(TrialError) as caught:
        score(Said(Found(**parts)), subject)
    assert str(caught.value) == (
        f"said: the scores of 1 of {count} sites are no numbers, first {path}"
    )


def test_an_infinite_standard_error_does_not_leave(subject):
    stderr = np.full(len(subject.sites), np.inf)
    with pytest.raises(TrialError, match="are no numbers"):
        score(Said(Found(values=ascending(subject), stderr=stderr)), subject)


def test_a_method_that_cannot_is_not_run(subject):
    method = Said(ascending, reason="it has no head")
    with pytest.raises(RequestError, match="said cannot score it: it has no head"):
        score(method, subject)
    assert method.subjects == []


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows(base, anatomy, prepared, count):
    subject = subject_of(base, anatomy, prepared.train.rows[:count])
    with pytest.raises(RequestError) as caught:
        score(Said(ascending), subject)
    assert str(caught.value) == (
        f"said: {count} training rows; at least 2 are needed, so that halves of them can be "
        "compared"
    )
    assert score(Said(ascending, needs=Needs(rows=False)), subject).settings["rows"] == 0


def test_no_sites(base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows, sites=())
    with pytest.raises(RequestError, match="there is no site to score"):
        score(Said(ascending), subject)


# --- nulls


def scores(seed, given):
    """Values around 1 that a seed decides."""
    return np.exp(noise(seed, given))


def test_scores_that_do_not_see_the_targets_are_uninformative(subject):
    # Depends on what is read and on nothing else.
    method = Said(lambda given: scores(sum(map(len, (row.ids for row in given.rows))), given))
    table = score(method, subject, ["labels"])
    (reason,) = table.uninformative
    assert reason == (
        "rows whose targets were exchanged among all rows give about the same: the sites' values, "
        "relative to one another, differ by a factor of 1.00 from the nearest of 6 draws, and "
        "draws by up to 1.00 (Kendall's τ 1.00 with them, 1.00 among them)."
    )
    assert table.notes[-1].startswith(f"uninformative: {reason} The check took ")
    assert len(method.subjects) == 7


def test_scores_that_see_the_targets_are_held_against_draws(subject):
    rows = subject.rows

    def seeing(given):
        told = scores(0, given) if given.rows is rows else ascending(given)
        return told * scores(int(given.rows[0].ids.sum()), given) ** 0.05

    table = score(Said(seeing), subject, ["labels"])
    assert table.uninformative == ()
    assert table.notes[-1].startswith("against rows whose targets were exchanged among all rows: t")


def test_constant_scores_beside_a_null(subject):
    table = score(Said(lambda given: np.ones(len(given.sites))), subject, ["weights"])
    assert "uninformative: untrained models of this configuration give about" in table.notes[-1]
    assert "draws by up to 1.00. The check took" in table.notes[-1]


@pytest.mark.parametrize(
    ("needs", "null", "why"),
    [
        (Needs(rows=False), "weights", "it reads no rows"),
        (Needs(rows=True), "labels", "it does not read what is predicted in them"),
    ],
)
def test_a_null_that_says_nothing_of_a_method(subject, needs, null, why):
    method = Said(ascending, needs=needs)
    with pytest.raises(RequestError) as caught:
        score(method, subject, [null])
    assert str(caught.value) == f"said cannot be held against the null {null}: {why}"
    assert method.subjects == []
