"""What does one forward pass without weights show: which maps ran, and what they did?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

from loratlas.anatomy.blocks import Place, alike, is_map
from loratlas.anatomy.build import encoder_states, example_inputs, forward_options
from loratlas.anatomy.dataflow import find_roles
from loratlas.anatomy.graph import Node
from loratlas.anatomy.roles import Roles
from loratlas.anatomy.sites import Family, Role
from loratlas.anatomy.trace import Tracer


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What one forward pass showed.

    Attributes:
        maps: applications of maps and embeddings, in the order they ran.
        roles: role by path, for maps inside blocks.
        why: why a map inside a block has no role, by path, where something is known of it.
        used: paths of maps and embeddings that ran.
        ran: paths of modules that ran, and of bare parameters that were used. A module does
            not run where another reads its weight.
        on_tokens: those of them that ran on tokens alone.
        bits: the bit of each input stream in a node's leaves.
        failure: why the forward pass could not be followed to its end, else None.
    """

    maps: Sequence[Node]
    roles: Mapping[str, Role]
    why: Mapping[str, str]
    used: frozenset[str]
    ran: frozenset[str]
    on_tokens: frozenset[str]
    bits: Mapping[str, int]
    failure: str | None


def follow(model: PreTrainedModel, places: Mapping[str, Place]) -> Flow:
    """Run the forward pass and read the roles from it.

    Where it does not run with tokens alone, it is tried with the next of `example_inputs`;
    the first failure is the one that is told. A decoder of its own whose cross-attention
    lies idle (BartForCausalLM) is given the states of an encoder as well: its sites are
    cross-attention, though they do not run on tokens alone.
    """
    inputs, tokens, failure = _run_on_tokens(model)
    tracer = tokens if failure else _run_with_states(model, places, inputs, tokens)
    roles = (
        Roles(places)
        if failure
        else find_roles(tracer.maps, tracer.attentions, places, causal=is_causal(model))
    )
    return Flow(
        maps=tracer.maps,
        roles=_with_twins(model, roles.found),
        why=roles.why,
        used=frozenset(node.path for node in tracer.maps),
        ran=_visited(model, tracer),
        on_tokens=_visited(model, tokens),
        bits=tracer.bits,
        failure=failure,
    )


def _run_on_tokens(model: PreTrainedModel) -> tuple[Mapping[str, Tensor], Tracer, str | None]:
    """Return the first inputs that run and what they showed, else the last and a failure."""
    failure = None
    for inputs in example_inputs(model):
        tracer, error = _run(model, inputs)
        if error is None:
            return inputs, tracer, None
        failure = failure or error
    return inputs, tracer, failure


def _run_with_states(
    model: PreTrainedModel,
    places: Mapping[str, Place],
    inputs: Mapping[str, Tensor],
    tokens: Tracer,
) -> Tracer:
    """Return what the states of an encoder show as well, where maps in blocks wait for them."""
    states = encoder_states(model)
    if not states or not _has_idle_maps(model, places, tokens):
        return tokens
    whole, error = _run(model, {**inputs, **states})
    return whole if error is None else tokens


def _visited(model: PreTrainedModel, tracer: Tracer) -> frozenset[str]:
    modules = {path for path, _ in model.named_modules()}
    return frozenset(tracer.ran | {n.path for n in tracer.maps if n.path not in modules})


def _has_idle_maps(model: PreTrainedModel, places: Mapping[str, Place], tracer: Tracer) -> bool:
    used = {node.path for node in tracer.maps}
    maps = (path for path, module in model.named_modules() if is_map(module))
    return any(path in places and path not in used for path in maps)


def _run(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> tuple[Tracer, str | None]:
    tracer = Tracer(model)
    streams = {name: tracer.stream(name, value) for name, value in inputs.items()}
    options: dict[str, Any] = forward_options(model, inputs)
    with torch.no_grad(), tracer:
        try:
            model(**streams, **options)
        except Exception as error:  # a model may fail in any way where values are missing
            return tracer, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return tracer, None


def _with_twins(model: PreTrainedModel, roles: Mapping[str, Role]) -> dict[str, Role]:
    """Give experts that did not run the role of a twin that did."""
    shared = alike(model)
    experts = {
        shared[path]: role
        for path, role in roles.items()
        if role.family is Family.EXPERT and path in shared
    }
    twins = {path: experts[key] for path, key in shared.items() if key in experts}
    return twins | dict(roles)


def is_causal(model: PreTrainedModel) -> bool:
    """Whether a model with one stack predicts the next token.

    The class says so where it is a language model. The body alone is asked for the flag
    that its attention modules carry.
    """
    name = type(model).__name__
    if name in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return True
    if name in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values():
        return False
    return any(getattr(module, "is_causal", False) for module in model.modules())
