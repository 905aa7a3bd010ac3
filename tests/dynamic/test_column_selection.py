"""Which columns stay and which sites grow, against every other choice where that is few."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from loratlas.dynamic.selection import Column, grow, keep

COSTS = {"a": 3, "b": 5, "c": 2}


@st.composite
def choices(draw):
    columns = [
        Column(path, number, COSTS[path], draw(st.integers(0, 4)), draw(st.booleans()))
        for path in COSTS
        for number in range(draw(st.integers(0, 3)))
    ]
    return draw(st.permutations(columns)), draw(st.integers(0, 30))


@settings(deadline=None)
@given(choices())
def test_what_stays_fits_and_nothing_better_was_left_out(choice):
    columns, limit = choice
    kept = keep(columns, limit)
    assert sum(column.cost for column in kept) <= limit
    for left in set(columns) - set(kept):
        before = [k for k in kept if (k.protected, k.value) >= (left.protected, left.value)]
        assert sum(column.cost for column in before) + left.cost > limit


@settings(deadline=None)
@given(choices())
def test_with_one_cost_what_stays_is_worth_most(choice):
    columns, limit = choice
    alike = [column._replace(cost=2, protected=False) for column in columns]
    kept = keep(alike, limit)
    count = min(limit // 2, len(alike))
    best = max(sum(c.value for c in some) for some in combinations(alike, count))
    assert len(kept) == count
    assert sum(column.value for column in kept) == best


def test_ties_leave_sites_at_equal_ranks():
    columns = [Column(path, number, 1, 0.0) for path in "cab" for number in range(3)]
    assert {(column.path, column.number) for column in keep(columns, 5)} == {
        ("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1),
    }  # fmt: skip


def test_the_least_rank_of_a_site_comes_first():
    columns = [Column("a", number, 1, 9.0) for number in range(4)]
    columns += [Column("b", number, 1, 1.0 + number) for number in range(4)]
    kept = keep(columns, 5, min_rank=2)
    assert [column.number for column in kept if column.path == "b"] == [3, 2]
    assert len(kept) == 5


def test_what_does_not_fit_is_skipped():
    columns = [Column("dear", 0, 7, 3.0), Column("dear", 1, 7, 2.0), Column("cheap", 0, 2, 1.0)]
    assert [column[:2] for column in keep(columns, 10)] == [("dear", 0), ("cheap", 0)]


def test_what_a_budget_does_not_count_may_have_a_limit_of_its_own():
    columns = [Column("dear", n, 1, 9.0 - n, parameters=7) for n in range(3)]
    columns += [Column("cheap", n, 1, 1.0 - n, parameters=2) for n in range(3)]
    assert [c[:2] for c in keep(columns, 4)] == [("dear", n) for n in range(3)] + [("cheap", 0)]
    assert [column[:2] for column in keep(columns, 4, most_parameters=18)] == [
        ("dear", 0), ("dear", 1), ("cheap", 0), ("cheap", 1),
    ]  # fmt: skip
    kept = keep(columns, 4, min_rank=1, most_parameters=9)
    assert [column[:2] for column in kept] == [("dear", 0), ("cheap", 0)]


def test_the_owners_of_the_best_columns_grow():
    kept = [Column("a", 0, 2, 9.0), Column("a", 1, 2, 8.0), Column("b", 0, 3, 7.0)]
    kept += [Column("c", 0, 1, 0.0)]
    wide = {"a": 9, "b": 9, "c": 9}
    assert grow(kept, 4, wide) == {"a": 2}
    assert grow(kept, 6, wide) == {"a": 2}  # b costs 3 and 2 are left
    assert grow(kept, 7, wide) == {"a": 2, "b": 1}
    assert grow(kept, 100, wide) == {"a": 2, "b": 1}  # c has no value
    assert grow(kept, 100, {"a": 3, "b": 1, "c": 9}) == {"a": 1}
