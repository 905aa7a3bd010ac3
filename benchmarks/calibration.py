"""How true are the seconds of ``plan --calibrate``? Run: ``python benchmarks/calibration.py``.

A study like the quickstart, with fewer steps, is planned with ``--calibrate`` and then run, several
times over. Of each placement the planned seconds of a trial are held against the median of the
seconds its trials took, and of the study the planned seconds of all trials against their sum. The
figures go to benchmarks/results/calibration.md. Run it on a machine with nothing else to do.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loratlas.study.folder import open_run

RESULTS = Path(__file__).parent / "results" / "calibration.md"
BOUND = 0.25
STUDY = """
name: calibration
model: demo:gpt2
data: {{source: "demo:facts", format: prompt_completion, max_length: 64}}
placements:
  full: all
  attention: attention
  feed_forward: feed_forward
  upper_half: all @ layers(50%..)
baseline: full
lora: {{rank: 8, alpha: 16}}
match: parameters
training: {{steps: {steps}, batch: 16, learning_rate: 5e-3, warmup: 0.1}}
seeds: {seeds}
engine: reference
measures: [loss]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """What one repeat planned and took, in seconds.

    Attributes:
        load: processes that wanted to run in the minute before, this one not yet started.
        planned: seconds of a trial by placement.
        taken: median seconds of its trials by placement.
        planned_total: seconds of all trials.
        taken_total: the same.
    """

    load: float
    planned: Mapping[str, float]
    taken: Mapping[str, float]
    planned_total: float
    taken_total: float


def loratlas(*arguments: str | Path) -> Any:
    """Return what a verb prints with ``--json``."""
    command = [sys.executable, "-m", "loratlas.cli.main"]
    done = subprocess.run([*command, *map(str, arguments), "--json"], stdout=subprocess.PIPE)
    done.check_returncode()
    return json.loads(done.stdout)


def repeat(steps: int, seeds: int) -> Repeat:
    """Plan the study and run it, each in processes and folders of their own."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="loratlas-") as folder:
        study, run = Path(folder, "study.yaml"), Path(folder, "run")
        study.write_text(STUDY.format(steps=steps, seeds=seeds), encoding="utf-8")
        plan = loratlas("plan", study, "--calibrate")
        loratlas("run", study, "--out", run)
        taken = trial_seconds(run)
    return Repeat(
        load=load,
        planned={name: found["seconds"] for name, found in plan["placements"].items()},
        taken={name: statistics.median(each) for name, each in taken.items()},
        planned_total=plan["seconds"],
        taken_total=sum(map(sum, taken.values())),
    )


def trial_seconds(run: Path) -> Mapping[str, list[float]]:
    """Return the seconds that the trials of each placement took to train."""
    with closing(open_run(run)) as store:
        trials = list(store.trials().values())
        placements = store.placements()
    assert all(trial.status == "done" for trial in trials)
    return {
        placement.name: [t.seconds for t in trials if t.placement_digest == placement.digest]
        for placement in placements
    }


def table(repeats: Sequence[Repeat]) -> list[str]:
    """Return a row for each placement and one for the study: medians over the repeats."""
    rows = [
        "| placement | planned, s | taken, s | ratio | lowest and highest ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in repeats[0].planned:
        rows.append(_row(name, [(r.planned[name], r.taken[name]) for r in repeats]))
    rows.append(_row("all trials", [(r.planned_total, r.taken_total) for r in repeats]))
    return rows


def _row(name: str, pairs: Sequence[tuple[float, float]]) -> str:
    planned, taken = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(p / t for p, t in pairs)
    return (
        f"| {name} | {planned:.2f} | {taken:.2f} | {statistics.median(ratios):.2f} "
        f"| {ratios[0]:.2f}, {ratios[-1]:.2f} |"
    )


def page(repeats: Sequence[Repeat], steps: int, seeds: int) -> str:
    """Return the results as Markdown."""
    loads = ", ".join(f"{each.load:.2f}" for each in repeats)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    ratios = [r.planned[name] / r.taken[name] for r in repeats for name in r.planned]
    inside = sum(abs(ratio - 1) <= BOUND for ratio in ratios)
    lines = [
        "# Calibrated plans: planned against taken seconds",
        "",
        "`python benchmarks/calibration.py`; the quickstart's placements on its model and rows,",
        f"{steps} steps, {seeds} seeds, {len(repeats)} repeats. Medians over the repeats; taken is",
        "the median of a placement's trials, planned is `plan --calibrate`, both without loading",
        "the base and scoring.",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}. Load of the",
        f"machine in the minute before each repeat: {loads}.",
        "",
        *table(repeats),
        "",
        f"{inside} of {len(ratios)} pairs of a placement and a repeat are within "
        f"{100 * BOUND:.0f}%; the farthest is {max(ratios, key=lambda ratio: abs(ratio - 1)):.2f}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark, print what it found and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE")
    options = parser.parse_args()
    repeats = []
    for number in range(options.repeats):
        repeats.append(repeat(options.steps, options.seeds))
        print(f"repeat {number + 1} of {options.repeats}", *table(repeats[-1:]), sep="\n")
    text = page(repeats, options.steps, options.seeds)
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
