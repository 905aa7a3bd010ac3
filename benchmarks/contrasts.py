"""Do the intervals and verdicts of the analysis err as rarely as they say?

Run: ``python benchmarks/contrasts.py [--studies 4000] [--markdown FILE]``.

Studies are drawn from the truths of ``benchmarks/truths.py`` and judged by the functions that
judge a run.
"""

import argparse
import platform
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import stats
from truths import (
    BALANCED,
    HEAVY,
    ROW_LED,
    SKEWED,
    TRUTHS,
    UNEQUAL,
    Floats,
    Truth,
    centred,
    scores,
    tokens,
)

from loratlas.analysis.bootstrap import bootstrap
from loratlas.analysis.components import MeanSquares, corpus_losses, mean_squares
from loratlas.analysis.multiplicity import holm

SEEDS, EXAMPLES = (3, 6, 10), (50, 200, 1000)
ALPHA, MARGIN, GAIN = 0.05, 0.05, 0.2
LEAST, MOST, MOST_ERRORS = 0.935, 0.97, 0.065
# Larger parts leave the processor's cache and take half as long again.
_CHUNK_ELEMENTS = 500_000
# True differences of a study's placements, in margins.
FAMILIES = {
    "4 without a difference": (0.0, 0.0, 0.0, 0.0),
    "4 at the margin": (1.0, 1.0, -1.0, -1.0),
    "2 and 2": (0.0, 0.0, 1.0, 1.0),
}
EDGES = {"worse by the margin": (1.0,), "better by the margin": (-1.0,)}
COVERAGE = "truth, seeds, examples, loratlas, Satterthwaite, t over seeds, bootstrap over seeds"
WORDS = "truth, placements, seeds, examples, better or worse, equivalent or not inferior, any word"
END = "truth, placement, seeds, examples, loratlas, t over seeds"


def chunks(studies: int, elements: int) -> Iterator[int]:
    """Split studies into parts of a bounded size."""
    size = max(1, _CHUNK_ELEMENTS // elements)
    for start in range(0, studies, size):
        yield min(size, studies - start)


def intervals(squares: MeanSquares, losses: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Return the lower and upper ends of each method's 95% interval, loratlas first."""
    error, tail = np.sqrt(squares.variance), 1 - ALPHA / 2
    num_seeds = losses.shape[-1]
    alone = losses.std(axis=-1, ddof=1) / np.sqrt(num_seeds)
    reach = {
        "loratlas": stats.t.ppf(tail, squares.freedom) * error,
        "Satterthwaite": stats.t.ppf(tail, satterthwaite(squares)) * error,
        "t over seeds": stats.t.ppf(tail, num_seeds - 1) * alone,
    }
    middle = squares.estimate
    ends = {name: (middle - width, middle + width) for name, width in reach.items()}
    # The same thousand resamples for every study: only the mean of each is needed.
    drawn = np.random.default_rng(1).multinomial(num_seeds, [1 / num_seeds] * num_seeds, 1000)
    low, high = np.quantile(losses @ drawn.T / num_seeds, [ALPHA / 2, tail], axis=-1)
    return {**ends, "bootstrap over seeds": (low, high)}


def satterthwaite(squares: MeanSquares) -> Floats:
    """Return Satterthwaite's degrees of freedom of the same variance."""
    seeds, examples = squares.num_seeds - 1, squares.num_examples - 1
    total = squares.seed + np.maximum(squares.example - squares.rest, 0)
    example = np.maximum(squares.example, squares.rest)
    parts = squares.seed**2 / seeds + example**2 / examples
    return np.maximum(total**2 / (parts + squares.rest**2 / (seeds * examples)), 1)


def coverage(
    truth: Truth, num_seeds: int, num_examples: int, studies: int, chance: np.random.Generator
) -> dict[str, float]:
    """Return how often each method's interval holds the truth, 0."""
    hits: dict[str, int] = {}
    for part in chunks(studies, num_seeds * num_examples):
        lengths = tokens(chance, part, num_examples)
        drawn = scores(truth, chance, lengths, 1, num_seeds)[:, 0]
        found = intervals(mean_squares(drawn, lengths), corpus_losses(drawn, lengths))
        for name, (low, high) in found.items():
            hits[name] = hits.get(name, 0) + int(np.count_nonzero((low <= 0) & (high >= 0)))
    return {name: count / studies for name, count in hits.items()}


def p_values(
    truth: Truth, num_seeds: int, lengths: Floats, at: Floats, chance: np.random.Generator
) -> dict[str, Floats]:
    """Draw studies of a baseline and placements, and ask the questions of `verdicts`.

    Args:
        truth: of each arm's noise; arms share the examples, and all share the baseline.
        num_seeds: seeds of each arm.
        lengths: token counts, shape (studies, examples).
        at: true difference of each placement from the baseline, in margins. A margin is four
            standard errors of a difference wide, so that its far end plays no part.
        chance: generator.

    Returns:
        p of each question, shape (studies, placements).
    """
    noise = scores(truth, chance, lengths, len(at) + 1, num_seeds)
    noise *= MARGIN * GAIN / 4 / np.sqrt(2)
    per_row, lengths = lengths[:, None, None], lengths[:, None]
    # Turned round, so that a skew adds up in the difference and does not cancel.
    theirs, base = -noise[:, :1], (GAIN + centred(np.sin, per_row)) * per_row
    ours = noise[:, 1:] + (at * MARGIN * GAIN)[:, None, None] * per_row
    upper = ours - (1 - MARGIN) * theirs - MARGIN * base
    lower = ours - (1 + MARGIN) * theirs + MARGIN * base
    below, above = _p_less(upper, lengths), 1 - _p_less(lower, lengths)
    less = _p_less(ours - theirs, lengths)
    return {
        "difference": 2 * np.minimum(less, 1 - less),
        "equivalent": np.maximum(below, above),
        "not inferior": below,
        "equivalent, t over seeds": np.maximum(
            _p_less_over_seeds(upper, lengths), 1 - _p_less_over_seeds(lower, lengths)
        ),
    }


def _p_less(sums: Floats, lengths: Floats) -> Floats:
    squares = mean_squares(sums, lengths)
    return stats.t.cdf(squares.estimate / np.sqrt(squares.variance), squares.freedom)


def _p_less_over_seeds(sums: Floats, lengths: Floats) -> Floats:
    losses = corpus_losses(sums, lengths)
    count = losses.shape[-1]
    ratio = losses.mean(axis=-1) / losses.std(axis=-1, ddof=1) * np.sqrt(count)
    return stats.t.cdf(ratio, count - 1)


def errors(
    truth: Truth,
    num_seeds: int,
    num_examples: int,
    at: tuple[float, ...],
    studies: int,
    chance: np.random.Generator,
) -> dict[str, float]:
    """Return how often a study says something false of any of its placements.

    Args:
        truth: of each arm's noise.
        num_seeds: seeds of each arm.
        num_examples: examples.
        at: true differences in margins: 0 is none; at 1 and -1 "equivalent" is just false.
        studies: how many.
        chance: generator.

    Returns:
        shares of studies with a false "better" or "worse", with a false "equivalent" or "not
        inferior", with either, and with a false "equivalent" by t over seeds alone.
    """
    wrong = dict.fromkeys(("difference", "margin", "either", "margin, t over seeds"), 0)
    true = np.array(at)
    alike, outside, worse = true == 0, np.abs(true) >= 1, true >= 1
    for part in chunks(studies, (len(at) + 1) * num_seeds * num_examples):
        p = p_values(truth, num_seeds, tokens(chance, part, num_examples), true, chance)
        said = {question: _rejected(each) for question, each in p.items()}
        differs = said["difference"][:, alike].any(axis=1)
        inside = said["equivalent"][:, outside].any(axis=1)
        inside |= said["not inferior"][:, worse].any(axis=1)
        naive = said["equivalent, t over seeds"][:, outside].any(axis=1)
        for name, found in zip(wrong, (differs, inside, differs | inside, naive), strict=True):
            wrong[name] += int(np.count_nonzero(found))
    return {name: count / studies for name, count in wrong.items()}


def _rejected(p: Floats) -> NDArray[np.bool_]:
    adjusted = np.array([holm(row) for row in p.tolist()], dtype=np.float64)
    return adjusted <= ALPHA


def one_seed(truth: Truth, num_examples: int, studies: int, chance: np.random.Generator) -> float:
    """Return how often the bootstrap of one seed holds what that seed loses on all examples."""
    lengths = tokens(chance, studies, num_examples)
    alone = Truth(name=truth.name, shares=(0, 1, 0), of_rows=truth.of_rows)
    drawn = scores(alone, chance, lengths, 1, 1)[:, 0, 0]
    hits = 0
    for number in range(studies):
        found = bootstrap(drawn[number], lengths[number], seed=number, num_resamples=999)
        low, high = found.interval(1 - ALPHA)
        hits += low <= 0 <= high
    return hits / studies


def coverage_table(
    seeds: tuple[int, ...], examples: tuple[int, ...], studies: int, chance: np.random.Generator
) -> Iterator[list[str]]:
    """Yield a row a truth, number of seeds and number of examples."""
    for truth, num_seeds, num_examples in product(TRUTHS, seeds, examples):
        found = coverage(truth, num_seeds, num_examples, studies, chance)
        ours, *others = found.values()
        missed = ours < LEAST or (truth.gaussian and ours > MOST)
        told = f"**{ours:.1%}**" if missed else f"{ours:.1%}"
        cell = [truth.name, str(num_seeds), str(num_examples), told]
        yield [*cell, *(f"{each:.1%}" for each in others)]


def error_table(
    truths: tuple[Truth, ...],
    examples: tuple[int, ...],
    cases: dict[str, tuple[float, ...]],
    columns: tuple[str, ...],
    studies: int,
    chance: np.random.Generator,
) -> Iterator[list[str]]:
    """Yield a row a truth, case, number of seeds and number of examples."""
    for truth, (case, at) in product(truths, cases.items()):
        for num_seeds, num_examples in product(SEEDS, examples):
            found = errors(truth, num_seeds, num_examples, at, studies, chance)
            told = [
                f"**{found[name]:.1%}**"
                if name in ("difference", "margin") and found[name] > MOST_ERRORS
                else f"{found[name]:.1%}"
                for name in columns
            ]
            yield [truth.name, case, str(num_seeds), str(num_examples), *told]


def one_seed_table(studies: int, chance: np.random.Generator) -> Iterator[list[str]]:
    """Yield a row a truth and number of examples."""
    for truth, num_examples in product((ROW_LED, HEAVY, SKEWED), EXAMPLES[:2]):
        found = one_seed(truth, num_examples, studies, chance)
        told = f"**{found:.1%}**" if found < LEAST else f"{found:.1%}"
        yield [truth.name.split(",")[0], str(num_examples), told]


def table(header: str, rows: Iterator[list[str]]) -> str:
    """Return a Markdown table; `header` has its columns, separated by commas."""
    columns = header.split(", ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(studies: int, seed: int) -> Iterator[str]:
    """Yield the parts of the results, in the order in which they are found."""
    chance = np.random.default_rng(seed)
    yield f"""# Statistics: what intervals and verdicts do when the truth is known

`python benchmarks/contrasts.py --markdown FILE`; {studies:,} simulated studies a row, seed {seed};
Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}.
A share of 95% of them has a standard error of {np.sqrt(0.95 * 0.05 / studies):.2%}. Bold: below
{LEAST:.1%}, above {MOST:.0%} under a Gaussian truth, or more than {MOST_ERRORS:.1%} errors."""
    of_truths = "\n".join(
        f"- {truth.name}: {', '.join(f'{share:.0%}' for share in truth.shares)}" for truth in TRUTHS
    )
    yield f"""## Coverage of the 95% interval for new seeds and new examples

Shares of a difference's variance that come from seeds, examples and the rest:

{of_truths}

"Satterthwaite" is the same variance with his degrees of freedom; the last two columns look at
the seeds' losses alone, the bootstrap by percentiles."""
    yield table(COVERAGE, coverage_table(SEEDS, EXAMPLES, studies, chance))
    yield """## Coverage with two seeds

Two seeds say next to nothing of their own spread; an estimate that rests on two says so."""
    yield table(COVERAGE, coverage_table((2,), (200,), studies, chance))
    yield """## False words in a study of four placements, at 5% after Holm

Differences are none, or just as large as the margin, which is four standard errors wide. A false
word is "better" or "worse" where there is no difference, "equivalent" or "not inferior" at the
margin. Each question is a family of its own; a study that holds both kinds of placement can err
in both, which is the last column."""
    words = ("difference", "margin", "either")
    yield table(WORDS, error_table((BALANCED, HEAVY), (200,), FAMILIES, words, studies, chance))
    yield """## One placement at the end of the margin

How often it is called equivalent or not inferior, falsely."""
    truths, ways = (BALANCED, ROW_LED, HEAVY, SKEWED, UNEQUAL), ("margin", "margin, t over seeds")
    yield table(END, error_table(truths, (50, 200), EDGES, ways, studies, chance))
    yield f"""## One seed: studentised bootstrap over examples, for that seed alone

{studies // 4:,} studies a row, 999 resamples."""
    yield table("truth, examples, coverage", one_seed_table(studies // 4, chance))


def misses(parts: list[str]) -> str:
    """Return how many rows lie beyond the limits, by heading and truth."""
    told = []
    for heading, rows in pairwise(parts):
        bold = [line for line in rows.split("\n") if line.startswith("|") and "**" in line]
        counts = Counter(line.split(" | ")[0].removeprefix("| ") for line in bold)
        name = heading.split("\n")[0].lstrip("# ")
        told += [f"- {name}: {truth}, {count} rows" for truth, count in counts.items()]
    return "\n".join(["## Beyond the limits", "", *(told or ["Nothing."])])


def main() -> None:
    """Run the benchmark, print what it finds, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4000, metavar="N", help="studies a row")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page here")
    options = parser.parse_args()
    began, parts = time.process_time(), []
    for part in page(options.studies, options.seed):
        print(f"{part}\n", flush=True)
        parts.append(part)
    parts.append(misses(parts))
    print(parts[-1])
    print(f"{time.process_time() - began:.0f} s of one core")
    if options.markdown is not None:
        options.markdown.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
