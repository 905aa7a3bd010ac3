"""Which learned arms did best over several studies? Run: ``python benchmarks/chosen_arms.py RUNS``.

By mean rank of the loss among the learned arms that all the studies have. Controls take no part:
scores that know nothing of data and weights, and scores upside down. So arms for another setting
are chosen without a look at it: see studies/learned-prose.yaml. RUNS are run folders, such as
runs/learned-facts and runs/learned-format.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats
from studies import table

from loratlas.analysis.summary import results
from loratlas.errors import LoratlasError
from loratlas.score.names import INVERTED, PLACES
from loratlas.study.folder import open_run

COUNT = 3


class Ranked(NamedTuple):
    """An arm with the rank of its loss in each study, 1 for the lowest; ties share their mean."""

    name: str
    ranks: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean rank."""
        return sum(self.ranks) / len(self.ranks)


def is_candidate(placement: Mapping[str, Any]) -> bool:
    """Whether an arm of a study is learned, and no control."""
    learned = placement["learned"]
    if learned is None:
        return False
    if learned["kind"] == "dynamic":
        return True
    method = learned["scores"]["method"]
    return not method.startswith(INVERTED) and PLACES[method][0] != "controls"


def by_mean_rank(found: Sequence[Mapping[str, Any]]) -> list[Ranked]:
    """Return the candidates, those with the best mean rank first, then by name.

    Args:
        found: results of each study, as ``loratlas results --json`` has them.

    Raises:
        ValueError: a candidate has no loss: nothing can be said before every arm has run.
    """
    arms = [each["placements"] for each in found]
    names = [name for name, arm in arms[0].items() if is_candidate(arm)]
    names = [name for name in names if all(name in each for each in arms)]
    losses = [[each[name]["loss"] for name in names] for each in arms]
    missing = [name for of in losses for name, loss in zip(names, of, strict=True) if loss is None]
    if missing:
        raise ValueError(f"no loss is known of {', '.join(dict.fromkeys(missing))}")
    ranks = zip(*(stats.rankdata(of).tolist() for of in losses), strict=True)
    ranked = [Ranked(name, of) for name, of in zip(names, ranks, strict=True)]
    return sorted(ranked, key=lambda each: (each.mean, each.name))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the candidates in their order, and those that are chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders")
    parser.add_argument("--count", type=int, default=COUNT, help=f"arms to choose; {COUNT}")
    options = parser.parse_args(argv)
    try:
        ranked = by_mean_rank([_results(folder) for folder in options.runs])
    except (LoratlasError, ValueError) as error:
        sys.exit(str(error))
    headers = ("arm", *(folder.name for folder in options.runs), "mean rank")
    rows = [[each.name, *(f"{r:g}" for r in each.ranks), f"{each.mean:g}"] for each in ranked]
    print(table(headers, rows))
    print(f"Chosen: {', '.join(each.name for each in ranked[: options.count])}.")


def _results(folder: Path) -> Mapping[str, Any]:
    with closing(open_run(folder)) as store:
        return results(store)


if __name__ == "__main__":
    main()
