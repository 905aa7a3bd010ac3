"""What does a study cost? Run: ``python benchmarks/cost_of_a_study.py [--quick] [--json FILE]``.

Time and memory of ``loratlas run`` as trials, adapted blocks, row lengths and ranks grow, one at a
time, and the share of the machine's peak that training reaches: the operations that the plan counts
(those of each trial trained alone, no padding, nothing kept between epochs) over the seconds of
training, held against a large matrix product on the same threads. A ratio is the time of so many
studies of one trial over the time of one study of so many trials.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from machine import described, peak_flops
from materials import GPT2_MEDIUM
from processes import SideError, run_process
from side_by_side import RESULTS, memory_of, parser_of, ratio_line, side_figures, told
from sides import LORATLAS, Side, run_ours
from work import Materials, Work, prepare, study_of, with_rows

WORK = Work(placements={"full": "all"}, seeds=4, train_rows=8, test_rows=4)
AXES: Mapping[str, Sequence[int]] = {
    "trials": (1, 2, 4, 8, 16, 32),
    "blocks": (1, 3, 6, 12, 24),
    "tokens": (64, 128, 256, 512),
    "rank": (4, 16, 64),
}
QUICK_WORK = replace(WORK, shape={**GPT2_MEDIUM, "n_layer": 6})
QUICK_AXES: Mapping[str, Sequence[int]] = {
    "trials": (1, 2, 4),
    "blocks": (1, 6),
    "tokens": (128, 256),
    "rank": (4, 16),
}
_GEMM_SIZE = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One study: what it varies, what it is, what it took.

    Attributes:
        flops: of its training, as planned.
    """

    axis: str
    value: int
    work: Work
    side: Side
    flops: float

    @property
    def flops_per_second(self) -> float:
        """Operations a second of training."""
        return self.flops / self.side.training_seconds


def varied(work: Work, axis: str, value: int) -> Work:
    """Return the work with one thing changed."""
    changes: dict[str, dict[str, Any]] = {
        "trials": {"seeds": value},
        "blocks": {"placements": {"full": f"all @ last({value})"}},
        "tokens": {"max_length": value},
        "rank": {"rank": value, "alpha": 2 * value},
    }
    return replace(work, **changes[axis])


def planned_flops(work: Work, materials: Materials, folder: Path) -> float:
    """Return the operations of a work's training, from ``loratlas plan``.

    Rows are planned one by one, so that no padding counts.
    """
    study = study_of(work, materials)
    study["training"] |= {"batch": 1, "accumulation": work.batch}
    file = folder / "plan.yaml"
    file.write_text(json.dumps(study), encoding="utf-8")
    run_process("loratlas plan", [*LORATLAS, "plan", file, "--json"], folder, threads=1)
    each = json.loads((folder / "stdout.txt").read_text(encoding="utf-8"))["placements"]
    per_step = sum(each[placement]["flops_per_step"] for placement, _, _ in work.trials)
    return float(per_step * work.steps)


def points(
    work: Work, axes: Mapping[str, Sequence[int]], folder: Path, threads: int
) -> Iterator[Point]:
    """Yield a point for each value of each axis; equal studies run once.

    Raises:
        SideError: a study failed.
    """
    model = prepare(work, folder, None).model
    known: list[Point] = []
    for axis, values in axes.items():
        for value in values:
            point = _point(varied(work, axis, value), axis, value, known, model, threads)
            known.append(point)
            yield point


def _point(
    work: Work, axis: str, value: int, known: Sequence[Point], model: Path, threads: int
) -> Point:
    for point in known:
        if same_study(point.work, work):
            return replace(point, axis=axis, value=value)
    with tempfile.TemporaryDirectory(prefix="loratlas-") as folder:
        materials = with_rows(work, model, Path(folder), None)
        side = run_ours(work, materials, Path(folder), threads)
        flops = planned_flops(work, materials, Path(folder))
    return Point(axis=axis, value=value, work=work, side=side, flops=flops)


def same_study(one: Work, other: Work) -> bool:
    """Return whether two works are one study: all blocks are as many as there are."""
    layers = one.shape.get("n_layer")
    everything = {"full": f"all @ last({layers})"}

    def plain(work: Work) -> Work:
        whole = work.placements == everything
        return replace(work, placements={"full": "all"}) if whole else work

    return plain(one) == plain(other)


def gains(found: Sequence[Point]) -> list[float]:
    """Return, for each number of trials, their time one by one over their time together."""
    of_trials = {point.value: point.side.seconds for point in found if point.axis == "trials"}
    return [n * of_trials[1] / seconds for n, seconds in of_trials.items() if n > 1]


def table(found: Sequence[Point], axis: str, peak: float) -> list[str]:
    """Return a row for each value of an axis."""
    lines = [
        f"| {axis} | whole, s | training, s | for a trial, s | TFLOP | share of peak | GiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for point in (each for each in found if each.axis == axis):
        side, num_trials = point.side, len(point.work.trials)
        lines.append(
            f"| {point.value} | {side.seconds:.1f} | {side.training_seconds:.1f} "
            f"| {side.training_seconds / num_trials:.2f} | {point.flops / 1e12:.2f} "
            f"| {point.flops_per_second / peak:.0%} | {memory_of(side)} |"
        )
    return lines


def page(work: Work, found: Sequence[Point], peak: float, *, quick: bool) -> str:
    """Return the page of results as Markdown."""
    parts = [
        "# What a study costs",
        f"`python benchmarks/cost_of_a_study.py{' --quick' if quick else ''} --write`. Where "
        f"nothing else is said: {told(work, drawn=True)}",
        described(work.device),
        f"Peak: {peak / 1e9:.0f} GFLOP/s, a product of two {_GEMM_SIZE} x {_GEMM_SIZE} matrices in "
        f"{work.dtype}. Operations are those of each trial trained alone, without padding, "
        "so work that is shared between trials or left out raises the share.",
        *("\n".join(table(found, axis, peak)) for axis in dict.fromkeys(p.axis for p in found)),
        "Many studies of one trial against one study of many, whole processes: "
        f"**{ratio_line(gains(found))}**.",
    ]
    return "\n\n".join(parts) + "\n"


def figures(found: Sequence[Point], peak: float) -> dict[str, Any]:
    """Return what was measured, for ``--json``."""
    return {
        "benchmark": "cost_of_a_study",
        "machine": described(found[0].work.device),
        "peak_flops": peak,
        "gains": gains(found),
        "points": [
            {
                "axis": point.axis,
                "value": point.value,
                "flops": point.flops,
                "share": point.flops_per_second / peak,
                "work": asdict(point.work),
                "loratlas": side_figures(point.side),
            }
            for point in found
        ],
    }


def main(
    argv: Sequence[str] | None = None,
    work: Work = WORK,
    axes: Mapping[str, Sequence[int]] = AXES,
) -> None:
    """Measure, print, and write where asked to."""
    options = parser_of(__doc__).parse_args(argv)
    if options.quick:
        work, axes = QUICK_WORK, QUICK_AXES
    found = []
    try:
        with tempfile.TemporaryDirectory(prefix="loratlas-") as folder:
            for point in points(work, axes, Path(folder), options.threads):
                print(f"{point.axis} {point.value}: {point.side.seconds:.1f} s", flush=True)
                found.append(point)
    except SideError as error:
        sys.exit(str(error))
    peak = peak_flops("cpu", work.dtype, threads=options.threads, size=_GEMM_SIZE)
    text = page(work, found, peak, quick=options.quick)
    print(text)
    if options.write:
        (RESULTS / "cost_of_a_study.md").write_text(text, encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps(figures(found, peak), indent=2) + "\n", encoding="utf-8")
    print(ratio_line(gains(found)))


if __name__ == "__main__":
    main()
