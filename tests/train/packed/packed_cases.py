"""A tiny base with rows, and how a trial on it is trained by either engine."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import families
from loratlas.anatomy.read import read
from loratlas.anatomy.sites import Anatomy
from loratlas.data.batches import prepare
from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.data.spec import DataSpec
from loratlas.placement.placement import Placement, place
from loratlas.train.adapters import new_adapters
from loratlas.train.base import Base, first_position, load_base
from loratlas.train.packed.backbone import Backbone
from loratlas.train.packed.batch import Flat, Whole
from loratlas.train.packed.fit import fit_pack
from loratlas.train.packed.opening import PackedBase
from loratlas.train.packed.passes import Passes
from loratlas.train.packed.slots import Slot
from loratlas.train.prefix import PrefixCache
from loratlas.train.reference import fit
from loratlas.train.trial import ModelRef, TrainingSpec
from loratlas.train.verify import wrapped_layers

CPU = torch.device("cpu")
# 17 rows are 6 micro-batches of 3 and one row less, so 3 windows an epoch, the last of 5 rows.
DATA = DataSpec(
    source="rows.jsonl", format="prompt_completion", train=17, validation=4, test=6, max_length=48
)
TRAINING = TrainingSpec(
    epochs=2, batch=3, accumulation=2, warmup=0.2, weight_decay=0.05, clip=0.05, scheduler="cosine"
)
UNLIMITED = 10**9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one trial is."""

    rule: str
    rate: float = 1e-2
    seed: int = 0
    rank: int = 4
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How a trial went: its losses, and A and B by path."""

    losses: tuple[float, ...]
    adapters: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(repr=False)

    def same_bits(self, other: "Trained") -> bool:
        pairs = zip(self._tensors, other._tensors, strict=True)
        return self.losses == other.losses and all(torch.equal(a, b) for a, b in pairs)

    def distance(self, other: "Trained") -> float:
        """Relative L2 of the adapters."""
        pairs = zip(self._tensors, other._tensors, strict=True)
        difference = sum(float((a - b).double().square().sum()) for a, b in pairs)
        return math.sqrt(difference / sum(float(b.double().square().sum()) for b in other._tensors))

    def loss_distance(self, other: "Trained") -> float:
        return max(abs(a - b) for a, b in zip(self.losses, other.losses, strict=True))

    @property
    def _tensors(self) -> list[torch.Tensor]:
        return [each for path in sorted(self.adapters) for each in self.adapters[path]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A base, and the rows that trials on it read."""

    base: Base
    anatomy: Anatomy
    rows: tuple[TokenizedRow, ...]
    test: tuple[TokenizedRow, ...]
    masking: Masking | None

    def placement(self, trial: Trial) -> Placement:
        return place(self.anatomy, trial.rule, rank=trial.rank, alpha=8)

    def prefix(self, **limits: Any) -> PrefixCache:
        options = {"memory_limit": UNLIMITED, **limits}
        return PrefixCache(base_digest=self.base.digest, dtype=self.base.model.dtype, **options)

    def flat(self) -> PackedBase:
        first = first_position(self.base.model)
        layout = Flat(task=self.base.task, device=CPU, first_position=first)
        backbone = Backbone(self.base.model, self.anatomy)
        return PackedBase(base=self.base, backbone=backbone, layout=layout)

    def whole(self) -> PackedBase:
        layout = Whole(collator=self.base.collator, device=CPU)
        return PackedBase(base=self.base, backbone=Backbone(self.base.model, None), layout=layout)

    def by_reference(self, trial: Trial, training: TrainingSpec = TRAINING) -> Trained:
        placement = self.placement(trial)
        with new_adapters(self.base, placement, seed=trial.seed, dropout=trial.dropout) as model:
            run = fit(
                self.base, model, self.rows, training,
                learning_rate=trial.rate, seed=trial.seed, masking=self.masking,
            )  # fmt: skip
            adapters = {
                path: tuple(
                    getattr(layer, name)["default"].weight.detach().clone()
                    for name in ("lora_A", "lora_B")
                )
                for path, layer in wrapped_layers(model).items()
            }
        return Trained(losses=run.losses, adapters=adapters)

    def slots(self, trials: "list[Trial]") -> list[Slot]:
        return [
            Slot.new(self.placement(t), seed=t.seed, dropout=t.dropout, device=CPU) for t in trials
        ]

    def packed(
        self,
        trials: "list[Trial]",
        *,
        base: PackedBase | None = None,
        training: TrainingSpec = TRAINING,
        passes: Passes | None = None,
        prefix: PrefixCache | None = None,
    ) -> list[Any]:
        """Train a pack; each trial is a `Trained`, or the error that it ended with."""
        slots = self.slots(trials)
        opened = (base or self.flat()).opened(slots, prefix or self.prefix())
        self.base.model.train()
        with opened as flow:
            fits = fit_pack(
                flow, self.rows, training,
                learning_rates=[trial.rate for trial in trials],
                passes=passes or Passes(UNLIMITED),
                masking=self.masking,
            )  # fmt: skip
        self.base.model.eval()
        return [
            Trained(losses=run.losses, adapters=copied(slot)) if hasattr(run, "losses") else run
            for slot, run in zip(slots, fits, strict=True)
        ]


def rows_of_many_lengths(count: int) -> str:
    """Return JSON Lines of prompts of 4 to 7 words and answers of 2 to 14, no two alike."""
    towns = ("Oslo", "Rome", "Lima", "Cairo", "Delhi")
    rows = (
        {
            "prompt": " ".join(["Where is", *["old"] * (n % 4), f"house {n}?"]),
            "completion": " In " + ", ".join(towns[(n + k) % 5] for k in range(n % 7 + 1)) + ".",
        }
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def copied(slot: Slot) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {path: (site.a.clone(), site.b.clone()) for path, site in slot.sites.items()}


def case_of(family: str, folder: Path, **changes: Any) -> Case:
    """Write a family's tiny model and rows into a folder, and load them."""
    families.write(family, folder)
    (folder / "rows.jsonl").write_text(rows_of_many_lengths(40))
    base = load_base(ModelRef(name=str(folder)), dtype="fp32", base_dropout=0.0, device=CPU)
    data = prepare(replace(DATA, **changes), base.tokenizer, root=folder, task=base.task)
    return Case(
        base=base,
        anatomy=read(str(folder)),
        rows=data.train.rows,
        test=data.test.rows,
        masking=data.masking,
    )
