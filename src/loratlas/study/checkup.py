"""Whether this installation can train, save, reload and score: a trial of two steps."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from loratlas.anatomy.read import read
from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.errors import LoratlasError
from loratlas.placement.placement import Placement, place
from loratlas.study.environment import environment
from loratlas.study.trial_runner import Bench, run_trial
from loratlas.train.base import load_base, pick_device
from loratlas.train.trial import ModelRef, TrainingSpec, TrialSpec

_MODEL = ModelRef(name="demo:gpt2")
_DATA = DataSpec(
    source="demo:facts", format="prompt_completion", train=16, validation=4, test=8, max_length=64
)
_TRAINING = TrainingSpec(steps=2, batch=4)


def checkup() -> dict[str, Any]:
    """Return ``{"ok", "checks": [{"name", "ok", "detail"}], "environment"}``."""
    checks: list[dict[str, Any]] = []
    bench_of: dict[str, Bench] = {}

    def load() -> str:
        base = load_base(_MODEL, dtype="fp32", base_dropout=0.0, device=pick_device("auto"))
        data = prepare(_DATA, base.tokenizer, root=Path())
        bench_of["bench"] = Bench(
            base=base,
            train=data.train.rows,
            scored={"test": data.test.rows},
            folder=Path(),
            environment=environment(base.device),
        )
        return f"{base.num_parameters:,} parameters on {base.device}"

    def train() -> str:
        return _two_steps(bench_of["bench"], place(read(_MODEL.name), "all", rank=4, alpha=8))

    if _passes(checks, "load the bundled model and its data", load):
        _passes(checks, "train two steps, save, reload, compare logits, score", train)
    bench = bench_of.get("bench")
    return {
        "ok": all(check["ok"] for check in checks),
        "checks": checks,
        "environment": {} if bench is None else bench.environment,
    }


def _two_steps(bench: Bench, placement: Placement) -> str:
    spec = TrialSpec(
        base_digest=bench.base.digest,
        data_digest="",
        placement_digest=placement.digest,
        learning_rate=1e-3,
        seed=0,
        lora_dropout=0.0,
        training=_TRAINING,
    )
    with tempfile.TemporaryDirectory(prefix="loratlas-") as folder:
        here = replace(bench, folder=Path(folder))
        record, scores = run_trial(
            here, spec, placement, adapter="adapter", attempts=1, on_step=lambda *_: None
        )
    if record.status != "done":
        raise LoratlasError(record.error)
    before = bench.score(bench.base.model)["test"].loss
    after = scores["test"].loss
    return f"logits equal after reloading; loss {before:.4f} before, {after:.4f} after"


def _passes(checks: list[dict[str, Any]], name: str, check: Callable[[], str]) -> bool:
    try:
        detail, passed = check(), True
    except Exception as error:  # whatever is wrong with an installation is what is asked for
        detail, passed = f"{type(error).__name__}: {error}", False
    checks.append({"name": name, "ok": passed, "detail": detail})
    return passed
