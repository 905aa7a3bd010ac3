"""How many operations are in a step, counted and planned, and what is the part of each role?

The count is that of `torch.utils.flop_counter.FlopCounterMode` over one row, the longest, forward
and back, with attention and experts in plain steps: of their fused kernels it counts nothing on a
CPU. The plan is the cost model's for the same row.

What a role costs is what a step with the adapters of that role alone takes more than a forward
pass of the bare base, by the cost model. The way back through frozen weights, down to the lowest
of these adapters, is in it: several roles share that way, so their costs do not add up to the
placement's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from loratlas.anatomy.source import find_source
from loratlas.cost.blueprint import read_blueprint
from loratlas.cost.flops import step_flops
from loratlas.cost.layout import UnaccountedError, lay_out
from loratlas.cost.parameters import BYTES_PER_PARAMETER
from loratlas.cost.plan import Estimator
from loratlas.cost.setting import Adapted, Setting, Workload
from loratlas.cost.step import Account, Step
from loratlas.data.rows import TokenizedRow
from loratlas.placement.placement import Placement
from loratlas.train.base import Base, quiet
from loratlas.train.trial import TrainingSpec


def count_and_plan(
    base: Base,
    peft_model: Any,
    placement: Placement,
    training: TrainingSpec,
    row: TokenizedRow,
    *,
    dropout: float,
) -> dict[str, Any]:
    """Return the operations of one row forward and back, as counted and as planned.

    Afterwards the base attends in plain steps, and adapters have no gradients.

    Returns:
        ``counted`` and ``planned``, None where not known; ``num_tokens`` of the row; ``unknown``,
        why the count is not known, None where it is.
    """
    inputs = on_device(base, [row])
    counted = unknown = None
    try:
        counted = _counted(base, peft_model, placement, inputs)
    except (RuntimeError, ValueError) as error:  # a kernel or too little memory: no fault of ours
        unknown = f"{type(error).__name__}: {error}".split("\n")[0]
    setting = setting_of(base, training, inputs, dropout=dropout)
    planned = Estimator(placement.anatomy, setting).cost(placement).flops
    return {
        "counted": counted,
        "planned": None if planned is None else planned.total,
        "num_tokens": num_positions(base, inputs),
        "unknown": unknown,
    }


def cost_of_roles(
    base: Base,
    placement: Placement,
    training: TrainingSpec,
    rows: Sequence[TokenizedRow],
    *,
    dropout: float,
) -> list[dict[str, Any]]:
    """Return what each role of a placement costs alone, in one micro-batch.

    Returns:
        for each family of roles ``role``, ``parameters``, ``flops_per_token`` (padding counts as
        tokens) and ``bytes`` at the peak, both above the bare base's and None where not known.
    """
    inputs = on_device(base, rows)
    setting = setting_of(base, training, inputs, dropout=dropout)
    estimator = Estimator(placement.anatomy, setting)
    try:
        account = Account(lay_out(placement.anatomy, setting.blueprint), setting)
        bare = account.step(Adapted(ranks={}))
    except UnaccountedError:
        bare = None
    tokens = num_positions(base, inputs)
    return [_role(part, estimator, bare, setting.workload, tokens) for part in by_role(placement)]


def by_role(placement: Placement) -> list[Placement]:
    """Return the adapters of each family of roles as a placement of its own."""
    families = dict.fromkeys(adapter.site.role.family for adapter in placement.adapters)
    return [
        Placement(
            anatomy=placement.anatomy,
            adapters=tuple(a for a in placement.adapters if a.site.role.family == family),
            scaling=placement.scaling,
        )
        for family in families
    ]


def on_device(base: Base, rows: Sequence[TokenizedRow]) -> dict[str, torch.Tensor]:
    """Return the batch of some rows where the base lies."""
    return {name: tensor.to(base.device) for name, tensor in base.collator(rows).items()}


def num_positions(base: Base, inputs: Mapping[str, torch.Tensor]) -> int:
    """Return the tokens that a batch sends through the model, padding included."""
    decoded = inputs["labels"].numel() if base.task == "seq2seq" else 0
    return inputs["input_ids"].numel() + decoded


def setting_of(
    base: Base, training: TrainingSpec, inputs: Mapping[str, torch.Tensor], *, dropout: float
) -> Setting:
    """Return what the cost model is told of one batch."""
    rows, tokens = inputs["input_ids"].shape
    config = find_source(base.ref.name, base.ref.revision).config
    return Setting(
        blueprint=read_blueprint(config, base_dropout=training.base_dropout),
        workload=Workload.alike(
            rows,
            tokens,
            decoder_tokens=inputs["labels"].shape[1] if base.task == "seq2seq" else None,
            padded=not bool(inputs["attention_mask"].all()),
        ),
        dropout=dropout,
        width=BYTES_PER_PARAMETER[training.dtype],
        on_cpu=base.device.type == "cpu",
    )


def _counted(
    base: Base, peft_model: Any, placement: Placement, inputs: Mapping[str, torch.Tensor]
) -> int:
    _run_in_plain_steps(base.model, any(s.num_experts for s in placement.anatomy.sites))
    peft_model.train()
    with FlopCounterMode(display=False) as counter:
        peft_model(**inputs).loss.backward()
    peft_model.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def _run_in_plain_steps(model: Any, has_experts: bool) -> None:
    """Turn fused kernels off.

    Raises:
        ValueError: the model keeps one, whose operations would go uncounted.
    """
    with quiet():
        model.set_attn_implementation("eager")
        if has_experts:
            model.set_experts_implementation("eager")
    if model.config._attn_implementation != "eager":
        raise ValueError("its attention has no plain form, and of a kernel nothing is counted")


def _role(
    part: Placement, estimator: Estimator, bare: Step | None, workload: Workload, tokens: int
) -> dict[str, Any]:
    cost = estimator.cost(part)
    flops = num_bytes = None
    if bare is not None and cost.flops is not None:
        flops = (cost.flops.total - step_flops(bare.flops, workload).total) / tokens
    if bare is not None and cost.memory is not None:
        num_bytes = cost.memory.peak - cost.memory.weights - bare.peak_bytes
    return {
        "role": str(part.adapters[0].site.role.family),
        "parameters": part.trainable_parameters,
        "flops_per_token": flops,
        "bytes": num_bytes,
    }
