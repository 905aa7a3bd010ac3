"""How much faster is a study with loratlas than the same trials with PEFT and Trainer?

What the benchmarks share that hold the two side by side: pairs of runs, one after the other on
the same machine, the page of results and the command line. A ratio is the peer's seconds over
ours, of one pair.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from machine import described
from materials import Given, MaterialsError, given
from processes import SideError
from sides import Side, require_same_work, run_ours, run_peer
from work import Materials, Work, prepare

RESULTS = Path(__file__).parent / "results"
_GIB = 2**30
# Measured once on 2 cores of an Intel Xeon with AVX512, 64 drawn rows, every site adapted.
_PEER_SETTINGS = (
    "The peer groups rows by length, writes no logs and no checkpoints, and takes one row at once "
    "because that was its faster setting: 107 s of training against 125 s with four rows at once "
    "(12 blocks, fp32); with 4 blocks 15.0 s against 14.7 s in fp32, and in bf16 21.5 s against "
    "22.8 s, or 23.4 s under autocast. Four rows are padded by 23% of their tokens."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A benchmark that a command carries out.

    Attributes:
        name: of its script, and of its page of results.
        title: heading of the page.
        work: the full size.
        quick: a smaller instance of the same work.
        pairs: runs of both sides.
        quick_pairs: runs of both sides on the smaller instance, in all under 5 minutes on 2 cores.
        least: the ratio that is asked for.
        aim: the ratio that is aimed at.
    """

    name: str
    title: str
    work: Work
    quick: Work
    pairs: int = 3
    quick_pairs: int = 1
    least: float
    aim: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Both sides, run one after the other.

    Attributes:
        first: which of them ran first.
        load: processes that wanted to run in the minute before.
    """

    first: str
    load: float
    ours: Side
    peer: Side

    @property
    def ratio(self) -> float:
        """The peer's seconds over ours."""
        return self.peer.seconds / self.ours.seconds


def run_pairs(work: Work, materials: Materials, num_pairs: int, threads: int) -> Iterator[Pair]:
    """Yield pairs of runs; which side begins alternates.

    Raises:
        SideError: a side failed, or the sides did not do the same work.
    """
    sides = {"loratlas": run_ours, "peer": run_peer}
    for number in range(num_pairs):
        load = os.getloadavg()[0]
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        found: dict[str, Side] = {}
        for name in order:
            with tempfile.TemporaryDirectory(prefix="loratlas-") as folder:
                found[name] = sides[name](work, materials, Path(folder), threads)
        pair = Pair(first=order[0], load=load, ours=found["loratlas"], peer=found["peer"])
        require_same_work(pair.ours, pair.peer, work)
        yield pair


def ratio_line(ratios: Sequence[float]) -> str:
    """Return the line that every benchmark ends with; the figure is the median."""
    middle, lowest, highest = statistics.median(ratios), min(ratios), max(ratios)
    return f"ratio {middle:.2f} ({lowest:.2f} to {highest:.2f} over {len(ratios)} pairs)"


def pairs_table(pairs: Sequence[Pair]) -> list[str]:
    """Return a row for each pair."""
    lines = [
        "| pair | began | load | loratlas, s | PEFT + Trainer, s | ratio "
        "| loratlas, GiB | PEFT + Trainer, GiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for number, pair in enumerate(pairs, start=1):
        lines.append(
            f"| {number} | {pair.first} | {pair.load:.2f} | {pair.ours.seconds:.1f} "
            f"| {pair.peer.seconds:.1f} | {pair.ratio:.2f} | {memory_of(pair.ours)} "
            f"| {memory_of(pair.peer)} |"
        )
    return lines


def memory_of(side: Side) -> str:
    """Return a side's peak in GiB: the accelerator's where there is one, else the process's."""
    num_bytes = side.peak_bytes if side.device_bytes is None else side.device_bytes
    return f"{num_bytes / _GIB:.2f}"


def losses_table(pair: Pair) -> list[str]:
    """Return both sides' test losses of each trial that both ran."""
    lines = [
        "| placement | rate | seed | steps | trained parameters | scored tokens "
        "| loss, loratlas | loss, PEFT + Trainer |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (placement, rate, seed), theirs in pair.peer.trials.items():
        mine = pair.ours.trials[placement, rate, seed]
        lines.append(
            f"| {placement} | {rate:g} | {seed} | {mine.steps} | {mine.trainable_parameters:,} "
            f"| {mine.num_scored:,} | {mine.test_loss:.4f} | {theirs.test_loss:.4f} |"
        )
    return lines


def told(work: Work, drawn: bool) -> str:
    """Return in words what a work is."""
    layers = work.shape.get("n_layer") or work.shape.get("num_hidden_layers")
    width = work.shape.get("n_embd") or work.shape.get("hidden_size")
    rows = "drawn rows with the lengths of Alpaca's" if drawn else "Alpaca's rows"
    rates = ", ".join(f"{rate:g}" for rate in work.learning_rates)
    micro, accumulated = work.micro_batch, work.batch // work.micro_batch
    placements = ", ".join(f"{name} (`{rule}`)" for name, rule in work.placements.items())
    return (
        f"{work.shape['model_type']} of {layers} layers, width {width}, vocabulary "
        f"{work.shape['vocab_size']:,}, random weights, {work.dtype}; {rows}, {work.train_rows} "
        f"for training and {work.test_rows} for the test, at most {work.max_length} tokens, loss "
        f"on the answer. Placements: {placements}. Rank: {work.rank}; learning rates: {rates}; "
        f"seeds: {work.seeds}; trials in all: {len(work.trials)}; epochs: {work.epochs}; rows of "
        f"a step: {work.batch}, of which the peer takes {micro} at once, {accumulated} times."
    )


def page(
    benchmark: Benchmark, work: Work, pairs: Sequence[Pair], *, quick: bool, drawn: bool
) -> str:
    """Return the page of results as Markdown."""
    command = f"python benchmarks/{benchmark.name}.py{' --quick' if quick else ''} --write"
    wanted = f"at least {benchmark.least:g}"
    if benchmark.aim is not None:
        wanted += f", aim {benchmark.aim:g}"
    engines = ", ".join(pairs[0].ours.engines)
    parts = [
        f"# {benchmark.title}",
        f"`{command}`. {told(work, drawn)}",
        described(work.device),
        "Seconds are those of whole processes, loading and scoring included; memory is the "
        f"largest process's. Engine of loratlas: {engines}. {_PEER_SETTINGS}",
        "\n".join(pairs_table(pairs)),
        f"**{ratio_line([pair.ratio for pair in pairs])}**; wanted: {wanted}.",
        "Losses on the test rows, first pair. They need not be equal: the peer groups rows by "
        "length, so each side visits the training rows in an order of its own.",
        "\n".join(losses_table(pairs[0])),
    ]
    return "\n\n".join(parts) + "\n"


def figures(benchmark: Benchmark, work: Work, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return what was measured, for ``--json``."""
    ratios = [pair.ratio for pair in pairs]
    return {
        "benchmark": benchmark.name,
        "work": asdict(work),
        "machine": described(work.device),
        "ratio": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "pairs": [
            {
                "first": pair.first,
                "load": pair.load,
                "ratio": pair.ratio,
                "loratlas": side_figures(pair.ours),
                "peer": side_figures(pair.peer),
            }
            for pair in pairs
        ],
    }


def side_figures(side: Side) -> dict[str, Any]:
    """Return what a side took, trials as a list."""
    trials = [
        {"placement": name, "learning_rate": rate, "seed": seed, **_without_sites(asdict(trained))}
        for (name, rate, seed), trained in side.trials.items()
    ]
    return asdict(replace(side, trials={})) | {"trials": trials}


def _without_sites(trained: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in trained.items() if key != "sites"}


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="a smaller instance of the same work")
    parser.add_argument("--threads", type=positive, default=2, help="of each process; 2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--write", action="store_true", help="write the page under results/")
    return parser


def add_sides(parser: argparse.ArgumentParser, *, pairs: int, quick_pairs: int) -> None:
    """Add the options of benchmarks that have two sides: how often, and with which files."""
    default = f"{pairs}, with --quick {quick_pairs}"
    parser.add_argument("--pairs", type=positive, help=f"pairs of runs; {default}")
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="with tokenizer.json")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="Alpaca's rows as JSON lines")


def positive(text: str) -> int:
    """Return a whole number from 1 on, as an option gives it."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def main(benchmark: Benchmark, doc: str | None, argv: Sequence[str] | None = None) -> None:
    """Run a benchmark, print its table, and end with the line of its ratio.

    Exits with status 1 and the reason where a side fails or files cannot serve.
    """
    parser = parser_of(doc)
    add_sides(parser, pairs=benchmark.pairs, quick_pairs=benchmark.quick_pairs)
    parser.add_argument("--micro-batch", type=int, choices=(1, 2, 4), help="rows, of the peer")
    options = parser.parse_args(argv)
    work = benchmark.quick if options.quick else benchmark.work
    if options.micro_batch is not None:
        work = replace(work, micro_batch=options.micro_batch)
    usual = benchmark.quick_pairs if options.quick else benchmark.pairs
    num_pairs = options.pairs or usual
    try:
        from_files = given(options.tokenizer, options.rows)
        pairs = _carry_out(work, num_pairs, options.threads, from_files)
    except (MaterialsError, SideError) as error:
        sys.exit(str(error))
    text = page(benchmark, work, pairs, quick=options.quick, drawn=from_files is None)
    print(text)
    if options.write:
        (RESULTS / f"{benchmark.name}.md").write_text(text, encoding="utf-8")
    if options.json is not None:
        found = json.dumps(figures(benchmark, work, pairs), indent=2)
        options.json.write_text(found + "\n", encoding="utf-8")
    print(ratio_line([pair.ratio for pair in pairs]))


def _carry_out(
    work: Work, num_pairs: int, threads: int, from_files: Given | None
) -> Sequence[Pair]:
    """Prepare once, run the pairs, and print each as it comes."""
    pairs = []
    with tempfile.TemporaryDirectory(prefix="loratlas-") as folder:
        materials = prepare(work, Path(folder), from_files)
        for pair in run_pairs(work, materials, num_pairs, threads):
            pairs.append(pair)
            print(
                f"pair {len(pairs)} of {num_pairs}: loratlas {pair.ours.seconds:.1f} s, "
                f"PEFT + Trainer {pair.peer.seconds:.1f} s, ratio {pair.ratio:.2f}",
                flush=True,
            )
    return pairs
