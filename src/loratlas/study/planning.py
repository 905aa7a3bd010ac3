"""What a study asks for and costs, from the configuration of its model and its rows alone.

No weight is loaded, unless the steps are to be timed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loratlas.anatomy.sites import Anatomy
from loratlas.anatomy.source import find_source
from loratlas.cost.blueprint import read_blueprint
from loratlas.cost.parameters import (
    BYTES_PER_PARAMETER,
    adapter_bytes,
    percent_saved_against_baseline,
    percent_saved_against_full,
    trainable_percent,
)
from loratlas.cost.plan import Cost, Estimator
from loratlas.cost.setting import Setting, Workload
from loratlas.errors import RequestError, TrialError
from loratlas.study.progress import Listener
from loratlas.study.resolve import ResolvedPlacement, families
from loratlas.study.spec import StudySpec
from loratlas.study.trials import num_trials
from loratlas.train.randomness import row_order
from loratlas.train.trial import ModelRef

if TYPE_CHECKING:
    from loratlas.data.masked import Masking
    from loratlas.data.rows import TokenizedRow

_LONGEST = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The rows that a study trains on, as far as they can be read before it runs.

    Attributes:
        train: the tokenised training rows; empty where they cannot be read.
        basis: what the workload rests on, in words.
        model: the study's model, with a head for the classes of its rows if there are any.
        masking: how rows are masked, for a masked language model.
    """

    train: "Sequence[TokenizedRow]"
    basis: str
    model: ModelRef
    masking: "Masking | None" = None


def read_rows(study: StudySpec) -> Rows:
    """Return the rows of a study; without them a plan takes each row at its longest.

    A plan is also made where data or tokenizer are not at hand. What is wrong with them is
    said in `basis`, and stops the run.
    """
    # Imported here because the tokenizer's library loads torch, and planning needs neither.
    from loratlas.study.request import model_for, read_data

    try:
        data = read_data(study)
    except RequestError as error:
        reason = str(error).rstrip(".")
        basis = f"every row at its longest, data.max_length: the rows cannot be read ({reason})"
        return Rows(train=(), basis=basis, model=study.model)
    return Rows(
        train=data.train.rows,
        basis="the training rows, tokenised",
        model=model_for(study, data),
        masking=data.masking,
    )


def workload_of(study: StudySpec, rows: Rows, config: Mapping[str, Any]) -> Workload:
    """Return the rows of an optimiser step: those of the first epoch of seed 0, on average."""
    training = study.training
    if rows.train:
        order = row_order(0, 0, len(rows.train)).tolist()
        visited = [rows.train[index] for index in order]
        sources = [row.source for row in visited if row.source is not None]
        written = [len(row.ids) for row in visited]
        return Workload.of_rows(
            [len(source) for source in sources] or written,
            batch=training.batch,
            accumulation=training.accumulation,
            decoder_lengths=written if sources else None,
        )
    limits = [config[key] for key in _LONGEST if isinstance(config.get(key), int)]
    longest = min([study.data.max_length, *limits])
    return Workload.alike(training.batch, longest, passes=training.accumulation)


def estimator_of(study: StudySpec, anatomy: Anatomy, workload: Workload) -> Estimator:
    """Return what says the costs of a study's placements."""
    setting = Setting(
        blueprint=read_blueprint(_config(study), base_dropout=study.training.base_dropout),
        workload=workload,
        dropout=study.lora.dropout,
        width=BYTES_PER_PARAMETER[study.training.dtype],
        on_cpu=_runs_on_cpu(study),
    )
    return Estimator(anatomy, setting)


def _runs_on_cpu(study: StudySpec) -> bool:
    if study.device != "auto":
        return study.device == "cpu"
    # Imported here because only torch knows what this machine has.
    from loratlas.train.base import pick_device

    return pick_device(study.device).type == "cpu"


def _config(study: StudySpec) -> Mapping[str, Any]:
    return find_source(study.model.name, study.model.revision).config


def calibrate(
    study: StudySpec, placements: Sequence[ResolvedPlacement], rows: Rows, listener: Listener
) -> dict[str, float | None]:
    """Return the seconds of one trial of each placement: a few steps of it, measured alone.

    Loading the base, and scoring rows after training, are not in it.

    Raises:
        RequestError: the rows cannot be read, so that there is nothing to time.
    """
    # Imported here because timing steps takes torch, and a plan without it does not.
    import torch

    from loratlas.train.base import pick_device
    from loratlas.train.probe import ProbeTask, probe
    from loratlas.train.reference import num_steps

    if not rows.train:
        raise RequestError(f"{study.path}: nothing can be timed on {rows.basis}")
    steps = num_steps(study.training, len(rows.train))
    listener.begin("timing a few steps of each placement", len(placements))
    found: dict[str, float | None] = {}
    for resolved in placements:
        task = ProbeTask(
            model=rows.model,
            device=pick_device(study.device).type,
            placement=resolved.placement,
            rows=rows.train,
            training=study.training,
            lora_dropout=study.lora.dropout,
            num_threads=torch.get_num_threads(),
            masking=rows.masking,
        )
        try:
            found[resolved.name] = probe(task).seconds_per_step * steps
        except TrialError as error:
            listener.say(f"{resolved.name}: its steps could not be timed: {error}")
            found[resolved.name] = None
        listener.advance()
    listener.end()
    return found


def plan_study(
    study: StudySpec,
    anatomy: Anatomy,
    placements: Sequence[ResolvedPlacement],
    *,
    rows: Rows | None = None,
    seconds: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """Return the plan of a study, keys as the ``plan`` command documents them.

    `power` is None: whoever reads the plan adds what `loratlas.analysis.power` says.

    Args:
        study: the study.
        anatomy: its model.
        placements: its placements on that model.
        rows: its rows; without them FLOPs and memory are None.
        seconds: what `calibrate` measured; without it times are None.
    """
    counts = {p.name: p.trainable_parameters for p in placements}
    workload = None if rows is None else workload_of(study, rows, _config(study))
    estimator = None if workload is None else estimator_of(study, anatomy, workload)
    each = {
        p.name: _placement(p, anatomy.num_parameters, counts[study.baseline])
        | _predicted(None if estimator is None else estimator.cost(p.placement))
        | {"seconds": (seconds or {}).get(p.name)}
        for p in placements
    }
    return {
        "study": study.name,
        "model": anatomy.model,
        "base_parameters": anatomy.num_parameters,
        "workload": None if rows is None or workload is None else _workload(rows, workload),
        "placements": each,
        "num_trials": num_trials(study, placements),
        "seconds": _total_seconds(each, num_trials(study, placements)),
        "power": None,
    }


def _placement(resolved: ResolvedPlacement, base_parameters: int, baseline: int) -> dict[str, Any]:
    placement = resolved.placement
    count = resolved.trainable_parameters
    matched = resolved.matched_to
    return {
        "rule": resolved.said,
        "num_sites": len(placement.adapters),
        "ranks": sorted({adapter.rank for adapter in placement.adapters}),
        "trainable_parameters": count,
        "matched_to": matched,
        "difference_to_match": None if matched is None else count - matched,
        "families": families(placement),
        "percent_of_base_and_adapters": trainable_percent(count, base_parameters),
        "percent_saved_against_full_fine_tuning": percent_saved_against_full(
            count, base_parameters
        ),
        "percent_saved_against_baseline": percent_saved_against_baseline(count, baseline),
        "adapter_bytes": adapter_bytes(count),
        "learned": _learned(resolved),
        "warnings": [{"code": lint.code, "message": lint.message} for lint in resolved.lints],
    }


def _learned(resolved: ResolvedPlacement) -> dict[str, Any] | None:
    """Return how a placement will be learned; its other figures are those of where it begins."""
    if resolved.moving is not None:
        by, kind = resolved.moving.spec.name, "dynamic"
    elif resolved.hybrid is not None:
        by, kind = resolved.hybrid.scoring.method, "hybrid"
    else:
        return None
    start = resolved.placement.trainable_parameters
    return {"kind": kind, "by": by, "start_parameters": start}


def _predicted(cost: Cost | None) -> dict[str, Any]:
    flops = None if cost is None else cost.flops
    memory = None if cost is None else cost.memory
    return {
        "optimiser_bytes": None if cost is None else cost.optimiser_bytes,
        "flops_per_step": None if flops is None else flops.total,
        "forward_flops_per_step": None if flops is None else flops.forward,
        "backward_flops_per_step": None if flops is None else flops.backward,
        "peak_memory_bytes": None if memory is None else memory.peak,
        "memory": None
        if memory is None
        else {
            "weights": memory.weights,
            "adapters": memory.adapters,
            "optimiser": memory.optimiser,
            "step": memory.step,
        },
        "unknown": None if cost is None else cost.unknown,
    }


def _workload(rows: Rows, workload: Workload) -> dict[str, Any]:
    return {
        "basis": rows.basis,
        "tokens_per_step": workload.tokens_per_step,
        "largest_batch": {"rows": workload.rows, "tokens": workload.tokens},
        "passes_per_step": workload.passes,
    }


def _total_seconds(placements: Mapping[str, Mapping[str, Any]], trials: int) -> float | None:
    """Return the seconds of all trials one after another, None where one is not known."""
    known = [found["seconds"] for found in placements.values()]
    if any(each is None for each in known):
        return None
    return float(sum(known)) * trials / len(known)
