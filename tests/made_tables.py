"""Tables of scores made by hand, for tests that ask no more of them than values."""

from loratlas.allocate.table import ScoreTable, ScoringCost, SiteScore


def table_of(values, **fields):
    """Return a table of values by path; `fields` replace what it has otherwise."""
    known = {
        "method": "m",
        "unit": "u",
        "higher_is_better": True,
        "model": "x",
        "anatomy_digest": "d",
        "cost": ScoringCost(),
    }
    scores = tuple(SiteScore(path=path, value=float(value)) for path, value in values.items())
    return ScoreTable(scores=scores, **(known | fields))
