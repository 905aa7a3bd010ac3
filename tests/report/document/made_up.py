"""Run folders made by hand: stores with trials whose losses are drawn, without any training.

    python tests/report/document/made_up.py

writes the golden files of these tests anew; look at what changed before it is committed.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loratlas.anatomy.sites import Anatomy, Role, Site
from loratlas.measure.scores import SplitScore
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import FILE_NAME, Store
from loratlas.train.outcome import Probe

GOLDEN = Path(__file__).parents[2] / "golden"
GOLDEN_FILES = ("report.md", "tables.tex")
NUM_LAYERS, WIDTH = 4, 16
_ROLES = ("attention.q", "attention.o", "feed_forward.up", "feed_forward.down")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large a made-up run is, and what its placements are called.

    The first `errors` are those of the last placement's trials at the highest rate.
    """

    names: tuple[str, ...] = ("full", "attention", "feed_forward")
    rates: tuple[float, ...] = (1e-3, 3e-3)
    seeds: int = 3
    rows: int = 30
    steps: int = 10
    name: str = "made-up"
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    model: str = "tiny"
    classes: tuple[str, ...] = ()


def make_run(folder: Path, shape: Shape = Shape(), **setting: Any) -> Path:
    """Write a run folder; the same shape gives the same figures. `setting` changes the meta."""
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(f"name: {shape.name}\n", encoding="utf-8")
    store = Store(folder / FILE_NAME, writable=True)
    chance = np.random.default_rng(0)
    rows = 2.0 + chance.normal(0, 0.2, shape.rows)
    store.set_base_scores({split: _score(rows + 1, shape) for split in ("validation", "test")})
    placements = [_placement(at, shape) for at in range(len(shape.names))]
    store.set_placements(placements)
    wanted = []
    for at, placement in enumerate(placements):
        store.set_probe(placement.digest, _probe(at))
        for rate in shape.rates:
            for seed in range(shape.seeds):
                record = _trial(at, placement, rate, seed, shape, chance)
                worse = 0.1 * at + 0.05 * shape.rates.index(rate)
                nll = rows + worse + chance.normal(0, 0.05, shape.rows)
                done = record.status == "done"
                scores = {s: _score(nll, shape) for s in ("validation", "test")} if done else {}
                store.add_trial(record, {}, scores)
                wanted.append(record.digest)
    for key, value in (_setting(shape, wanted) | setting).items():
        store.set_meta(key, value)
    store.close()
    return folder


def anatomy() -> Anatomy:
    sites = [
        Site(
            path=f"h.{layer}.{role}",
            stack="decoder",
            layer=layer,
            role=Role.parse(role),
            d_in=WIDTH,
            d_out=WIDTH,
        )
        for layer in range(NUM_LAYERS)
        for role in _ROLES
    ]
    head = Site(path="head", stack=None, layer=None, role=Role.parse("head"), d_in=WIDTH, d_out=50)
    return Anatomy(
        model="tiny",
        model_type="gpt2",
        architecture="GPT2LMHeadModel",
        stacks={"decoder": NUM_LAYERS},
        num_parameters=10_000,
        tied_head=False,
        sites=(*sites, head),
    )


def _score(nll: np.ndarray, shape: Shape) -> SplitScore:
    ones = np.ones(len(nll), dtype=np.int64)
    labels = np.arange(len(nll)) % len(shape.classes) if shape.classes else None
    count = 1 if shape.classes else 2
    return SplitScore(
        row=np.arange(len(nll)),
        nll=nll * count,
        num_tokens=count * ones,
        num_bytes=9 * ones,
        num_correct=ones,
        label=labels,
        predicted=labels,
    )


def _placement(at: int, shape: Shape) -> PlacementRecord:
    rank = 2 + at % 5
    kept = [
        site
        for site in anatomy().sites
        if site.layer is not None and (at == 0 or (site.layer + at) % 2 == 0)
    ]
    return PlacementRecord(
        name=shape.names[at],
        digest=f"{at:064x}",
        rule="all" if at == 0 else f"all @ every({1 + at})",
        trainable_parameters=1000 + 100 * at,
        matched_to=None,
        families={"attention": 600, "feed_forward": 400 + 100 * at},
        adapters=[{"path": site.path, "rank": rank, "alpha": 2.0 * rank} for site in kept],
        warnings=[{"code": "made-up", "message": text} for text in shape.warnings],
    )


def _probe(at: int) -> Probe:
    steps = [0.01 * (1 + at) + 0.0001 * step for step in range(5)]
    return Probe(
        seconds_per_step=steps[2],
        tokens_per_second=1000.0,
        peak_memory_bytes=(40 + at) * 2**20,
        num_steps=len(steps),
        engine="reference",
        step_seconds=steps,
    )


def _trial(
    at: int,
    placement: PlacementRecord,
    rate: float,
    seed: int,
    shape: Shape,
    chance: np.random.Generator,
) -> TrialRecord:
    last = at == len(shape.names) - 1 and rate == shape.rates[-1]
    error = shape.errors[seed] if last and seed < len(shape.errors) else None
    curve = 3.0 * np.exp(-np.arange(shape.steps) / shape.steps) + chance.normal(0, 0.1, shape.steps)
    return TrialRecord(
        digest=f"{at:08x}{shape.rates.index(rate):04x}{seed:04x}".ljust(64, "0"),
        placement_digest=placement.digest,
        learning_rate=rate,
        seed=seed,
        status="done" if error is None else "failed",
        error=error,
        engine="reference",
        seconds=1.5,
        losses=curve.tolist(),
        adapter_bytes=5000 + 100 * at,
    )


def _setting(shape: Shape, wanted: list[str]) -> dict[str, Any]:
    return {
        "name": shape.name,
        "study": {
            "model": {"name": shape.model, "revision": None},
            "data": {"source": "rows.jsonl", "format": "prompt_completion", "max_length": 48},
            "baseline": shape.names[0],
            "lora": {"rank": 2, "alpha": 4.0, "scaling": "constant", "dropout": 0.0},
            "training": {"steps": shape.steps, "learning_rate": list(shape.rates)},
            "seeds": list(range(shape.seeds)),
            "sweep_seeds": shape.seeds,
            "margin": 0.05,
        },
        "identity": {"base": "b" * 64, "data_rows": "d" * 64},
        "anatomy": anatomy().to_json(),
        "rows": {"train": 60, "validation": shape.rows, "test": shape.rows},
        "task": "classification" if shape.classes else "causal",
        "classes": list(shape.classes),
        "base_parameters": 10_000,
        "steps_per_trial": shape.steps,
        "data_report": [],
        "environment": {"python": "3.11.0", "device": "cpu", "torch": "2.13.0"},
        "measures": {},
        "chosen": dict.fromkeys(shape.names, shape.rates[0]),
        "wanted": wanted,
        "num_trials": len(wanted),
        "rates_chosen": True,
        "finished": True,
    }


def audit(shape: Shape) -> dict[str, Any]:
    """Return an audit of a made-up run, as ``loratlas audit --json`` prints it, in part."""
    names = list(shape.names)

    def variant(name: str, ratio: float, contradicts: bool) -> dict[str, Any]:
        return {
            "name": name,
            "applies": True,
            "reason": None,
            "base": 20.0 * ratio,
            "ratio": dict.fromkeys(names, ratio),
            "per_placement": dict.fromkeys(names, 8.0 * ratio),
            "ranking": names,
            "agrees": not contradicts,
            "contradicts": contradicts,
        }

    return {
        "study": shape.name,
        "split": "test",
        "num_rows": shape.rows,
        "num_tokens": 2 * shape.rows,
        "variants": [variant("corpus", 1.0, False), variant("labels_not_shifted", 150.0, True)],
    }


GOLDEN_SHAPE = Shape(errors=("CUDA out of memory",), warnings=("rank 2 is odd | even",))


def written(folder: Path, shape: Shape, **setting: Any) -> Path:
    """Make a run and its report; return the folder of the report."""
    from loratlas.report.document.write import write_report

    run = make_run(folder, shape, **setting)
    store = Store(run / FILE_NAME)
    write_report(run, store)
    store.close()
    return run / "report"


def _write_golden() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = written(Path(folder) / "run", GOLDEN_SHAPE)
        for name in GOLDEN_FILES:
            (GOLDEN / name).write_text((report / name).read_text(encoding="utf-8"))
            print(GOLDEN / name, file=sys.stderr)


if __name__ == "__main__":
    _write_golden()
