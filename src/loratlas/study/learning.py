"""How are the placements of a run learned that its study leaves to scores, or to a policy?

Before any trial: a hybrid's sites are scored on training rows and its budget is divided; what a
policy weighs sites with is taken. Both are kept in the run folder, so that a run that goes on has
the placements that it began with.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loratlas.allocate.allocate import allocate
from loratlas.allocate.allocation import Allocation
from loratlas.allocate.budget import Budget
from loratlas.allocate.table import ScoreTable
from loratlas.dynamic.attention_entropy import attention_entropies, priors
from loratlas.dynamic.options import EntropyOptions
from loratlas.dynamic.spec import schedule_of
from loratlas.errors import RequestError, StudyError
from loratlas.placement.lints import lints
from loratlas.placement.placement import Placement
from loratlas.score.methods import scorer
from loratlas.study.learned import HybridSpec, Learned
from loratlas.study.moving import Moving, Reading
from loratlas.study.progress import Listener
from loratlas.study.request import Request
from loratlas.study.resolve import ResolvedPlacement, not_movable, refused
from loratlas.study.scoring import score_by, subject_of
from loratlas.study.store import Store
from loratlas.train.packed.opening import refusal, why_not
from loratlas.train.randomness import row_order
from loratlas.train.reference import num_steps

_KEY = "learned"


def require_learnable(request: Request) -> None:
    """Refuse what scores or a policy could not do with this model and these rows.

    Whether the packed engine serves the base is only tried when trials begin; why it would not, as
    far as that can be seen, is said here.

    Raises:
        StudyError: a method cannot score the model, a schedule is longer than the training, there
            are too few rows, or the packed engine does not serve a placement that moves.
    """
    for resolved in request.placements:
        try:
            if resolved.hybrid is not None:
                _require_scorable(request, resolved.hybrid)
            if resolved.moving is not None:
                _require_movable(request, resolved.moving)
        except RequestError as error:
            raise refused(request.study, resolved.name, error) from error


def learn(request: Request, store: Store, listener: Listener) -> Request:
    """Return a request whose placements are all known; what was learned before is taken as it is.

    Args:
        request: the study, found right.
        store: of the run.
        listener: hears of it.

    Raises:
        RequestError: a budget cannot be divided.
        TrialError: scores are no numbers.
    """
    kept: dict[str, Any] = store.meta(_KEY) or {}
    found = []
    for resolved in request.placements:
        if resolved.hybrid is None and not _takes_priors(resolved.moving):
            found.append(resolved)
            continue
        if resolved.name not in kept:
            listener.say(f"{resolved.name}: {_said(resolved)}")
            try:
                kept[resolved.name] = _learned(request, resolved)
            except RequestError as error:
                raise refused(request.study, resolved.name, error) from error
            store.set_meta(_KEY, kept)
        found.append(_with(request, resolved, kept[resolved.name]))
    return replace(request, placements=found)


def _said(resolved: ResolvedPlacement) -> str:
    if resolved.hybrid is None:
        return "reading the attention of the base"
    return f"scoring {len(resolved.placement.adapters)} sites by {resolved.hybrid.scoring.method}"


def _learned(request: Request, resolved: ResolvedPlacement) -> dict[str, Any]:
    """Return what is kept of a placement that was learned, as plain data."""
    if resolved.moving is not None:
        return _entropies(request, resolved.moving)
    assert resolved.hybrid is not None
    table = _scores(request, resolved.hybrid)
    allocation = _allocated(request, resolved, table)
    return {"scores": table.to_json(), "allocation": allocation.to_json()}


def _scores(request: Request, hybrid: HybridSpec) -> ScoreTable:
    options = hybrid.scoring
    subject = subject_of(request.study, request.anatomy, request.data, request.base, options)
    return score_by(options, subject)


def _allocated(request: Request, resolved: ResolvedPlacement, table: ScoreTable) -> Allocation:
    study, hybrid = request.study, resolved.hybrid
    assert hybrid is not None
    budget = study.placements[resolved.name].budget or resolved.matched_to
    assert budget is not None
    return allocate(
        table,
        request.anatomy,
        Budget(amount=budget),
        lora=study.lora,
        constraints=hybrid.constraints,
        solver=hybrid.solver,
        root=study.root,
    )


def _with(
    request: Request, resolved: ResolvedPlacement, kept: Mapping[str, Any]
) -> ResolvedPlacement:
    """Return a placement with what was learned of it."""
    if resolved.moving is not None:
        return replace(resolved, moving=replace(resolved.moving, reading=Reading(**kept)))
    scaling = request.study.lora.scaling
    placement = Placement.from_json(kept["allocation"], request.anatomy, scaling=scaling)
    dropout, root = request.study.lora.dropout, request.study.root
    found = lints(resolved.rule, placement, request.anatomy, dropout=dropout, root=root)
    return replace(
        resolved,
        placement=placement,
        lints=tuple(found),
        learned=Learned(scores=kept["scores"], allocation=_without_sites(kept["allocation"])),
    )


def _without_sites(allocation: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in allocation.items() if key != "placement"}


def _takes_priors(moving: Moving | None) -> bool:
    return moving is not None and moving.spec.num_rows > 0


def _entropies(request: Request, moving: Moving) -> dict[str, Any]:
    options = moving.spec.options
    assert isinstance(options, EntropyOptions)
    rows = request.data.train.rows
    order = row_order(0, 0, len(rows))[: options.rows].tolist()
    began = time.perf_counter()
    found = attention_entropies(
        request.base,
        [rows[index] for index in order],
        request.anatomy,
        without_first_token=options.without_first_token,
    )
    sites = [adapter.site for adapter in moving.start.adapters]
    return {
        "priors": priors(found, sites, options.strength),
        "entropies": {f"{layer.stack} {layer.index}": value for layer, value in found.items()},
        "seconds": time.perf_counter() - began,
    }


def _require_scorable(request: Request, hybrid: HybridSpec) -> None:
    options = hybrid.scoring
    subject = subject_of(request.study, request.anatomy, request.data, request.base, options)
    reason = scorer(options.method, options.options).why_not(subject)
    if reason is not None:
        raise StudyError(f"{options.method} cannot score this: {reason}")


def _require_movable(request: Request, moving: Moving) -> None:
    num_rows = len(request.data.train.rows)
    schedule_of(
        moving.spec, moving.start, moving.target, num_steps(request.study.training, num_rows)
    )
    if moving.spec.num_rows > num_rows:
        raise StudyError(
            f"rows: {moving.spec.num_rows} rows are to be read, and there are {num_rows} training "
            f"rows; allowed: 1 to {num_rows}"
        )
    reason = refusal(request.base) or why_not(request.base, moving.start)
    if reason is not None:
        raise StudyError(not_movable(reason))
