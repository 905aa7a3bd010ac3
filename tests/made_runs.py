"""Run folders with saved adapters of random values, without any training."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

import families
from loratlas.measure.scores import SplitScore
from loratlas.study.folder import FILE_NAME
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import Store
from loratlas.train.trial import ModelRef, TrainingSpec

RATE = 3e-3
TRAINING = TrainingSpec(
    steps=3, batch=4, learning_rate=(RATE,), warmup=0.1, weight_decay=0.01, scheduler="cosine"
)


def model_folder(family: str, folder: Path) -> str:
    """Return the name of a model of a family, made in a folder where it is not bundled."""
    if family == "demo:gpt2":
        return family
    return str(families.write(family, folder / family))


def make_run(
    folder: Path,
    model: str,
    rule: str,
    *,
    rank: int = 4,
    alpha: float = 8,
    scaling: str = "constant",
    dropout: float = 0.0,
    seeds: tuple[int, ...] = (0,),
    name: str = "placed",
    task: str = "causal",
    weights: bool = True,
    training: TrainingSpec = TRAINING,
    classes: tuple[str, ...] = (),
) -> Path:
    """Write a run of one placement; a trial a seed, its adapter drawn by the seed."""
    from loratlas.anatomy.read import read
    from loratlas.placement.placement import place

    ref = ModelRef(name=model, num_labels=len(classes) or None)
    anatomy = read(model, num_labels=ref.num_labels)
    placement = place(anatomy, rule, rank=rank, alpha=alpha, scaling=scaling)
    folder.mkdir(parents=True)
    digest = None
    if weights:
        digest = save_random_adapters(folder, ref, placement, seeds, dropout, training)
    study = {
        "model": asdict(ModelRef(name=model)),
        "lora": {"rank": rank, "alpha": alpha, "scaling": scaling, "dropout": dropout},
        "training": asdict(training),
        "data": {"source": "rows.jsonl", "max_length": 48},
        "baseline": name,
        "margin": 0.05,
        "seeds": list(seeds),
    }
    trials = [
        TrialRecord(
            digest=f"{seed:02d}ab" * 16,
            placement_digest=placement.digest,
            learning_rate=RATE,
            seed=seed,
            status="done",
            engine="reference",
            adapter=f"adapters/seed{seed}",
        )
        for seed in seeds
    ]
    record = PlacementRecord(
        name=name,
        digest=placement.digest,
        rule=rule,
        trainable_parameters=placement.trainable_parameters,
        matched_to=None,
        families={},
        adapters=placement.to_json()["placement"],
        warnings=[],
    )
    with closing(Store(folder / FILE_NAME, writable=True)) as store:
        store.set_placements([record])
        store.set_base_scores({"test": score(3.0)})
        for trial in trials:
            store.add_trial(trial, {}, {"test": score(2.0 + 0.01 * trial.seed)})
        for key, value in {
            "name": "made",
            "study": study,
            "anatomy": anatomy.to_json(),
            "identity": {"base": digest},
            "task": task,
            "classes": list(classes),
            "chosen": {name: RATE},
            "wanted": [trial.digest for trial in trials],
            "num_trials": len(trials),
            "rates_chosen": True,
            "finished": True,
        }.items():
            store.set_meta(key, value)
    return folder


def save_random_adapters(folder, ref, placement, seeds, dropout, training):
    """Save an adapter a seed, every tensor of it drawn; return the digest of the base."""
    import torch

    from loratlas.train.adapters import new_adapters, save_adapters
    from loratlas.train.base import load_base

    base = load_base(
        ref,
        dtype=training.dtype,
        base_dropout=training.base_dropout,
        device=torch.device("cpu"),
    )
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        with new_adapters(base, placement, seed=seed, dropout=dropout) as model:
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.normal_(0, 0.1, generator=generator)
            save_adapters(
                model,
                placement,
                folder / f"adapters/seed{seed}",
                base_name=ref.name,
                revision=None,
            )
    return base.digest


def save_empty_adapter(run: Path, seed: int = 0) -> None:
    """Save what an export of a configuration looks for: that there is an adapter."""
    folder = run / f"adapters/seed{seed}"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").touch()


def change_trial(run: Path, seed: int, **changes) -> None:
    """Change the record of a trial."""
    from dataclasses import replace

    with closing(Store(run / FILE_NAME, writable=True)) as store:
        trial = next(each for each in store.trials().values() if each.seed == seed)
        store.add_trial(replace(trial, **changes), {}, store.scores(trial.digest))


def score(loss: float) -> SplitScore:
    tokens = np.full(20, 8)
    spread = np.random.default_rng(0).normal(0, 0.1, 20)
    return SplitScore(
        row=np.arange(20),
        nll=tokens * (loss + spread),
        num_tokens=tokens,
        num_bytes=tokens * 4,
        num_correct=tokens // 2,
    )
