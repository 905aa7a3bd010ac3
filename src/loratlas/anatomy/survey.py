"""What is a built model made of? Modules and the graph of its forward pass → `Anatomy`.

Embedding tables have the role ``embedding`` wherever they stand: token, position and type
tables, and the tables of relative attention bias inside a block. The last hold a score per
distance and head, no features, and are left out by rules such as ``all`` in this way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

from loratlas.anatomy.blocks import Place, alike, block_places, is_map, is_site
from loratlas.anatomy.build import example_inputs, forward_options
from loratlas.anatomy.dataflow import find_roles
from loratlas.anatomy.graph import Kind, Node
from loratlas.anatomy.sites import Anatomy, Family, Role, Site, SiteKind
from loratlas.anatomy.trace import Tracer

_OTHER = Role(family=Family.OTHER)
_MIXERS = (Family.ATTENTION, Family.CROSS_ATTENTION, Family.RECURRENT)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Flow:
    """What one forward pass showed.

    Attributes:
        maps: applications of maps and embeddings, in the order they ran.
        roles: role by path, for maps inside blocks.
        used: paths of maps and embeddings that ran.
        head: path of the language model head, None without one.
        bits: the bit of each input stream in a node's leaves.
        failure: why the forward pass could not be followed to its end, else None.
    """

    maps: Sequence[Node]
    roles: Mapping[str, Role]
    used: frozenset[str]
    head: str | None
    bits: Mapping[str, int]
    failure: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weight:
    """A site before its role is known."""

    path: str
    kind: SiteKind
    d_in: int
    d_out: int
    num_experts: int | None = None


def survey(name: str, model: PreTrainedModel) -> Anatomy:
    """Return the anatomy of a model that lies on the meta device.

    Args:
        name: the model as it was asked for.
        model: as `build` returns it.
    """
    places = block_places(model)
    flow = _follow(model, places)
    stacks = _name_stacks(model, flow, places)
    sites = tuple(_site(w, flow, places, stacks) for w in _weights(model, flow))
    return Anatomy(
        model=name,
        model_type=str(model.config.model_type),
        architecture=type(model).__name__,
        stacks=_stack_sizes(places, stacks),
        num_parameters=sum(p.numel() for p in model.parameters()),
        tied_head=_tied_head(model),
        sites=sites,
    )


def _follow(model: PreTrainedModel, places: Mapping[str, Place]) -> _Flow:
    """Run the forward pass and read the roles from it."""
    tracer = Tracer(model)
    streams = {k: tracer.stream(k, v) for k, v in example_inputs(model).items()}
    failure = None
    with torch.no_grad(), tracer:
        try:
            model(**streams, **forward_options(model))
        except Exception as error:  # a model may fail in any way where values are missing
            failure = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    roles = {} if failure else find_roles(tracer.maps, tracer.attentions, places)
    return _Flow(
        maps=tracer.maps,
        roles=_with_twins(model, roles),
        used=frozenset(node.path for node in tracer.maps),
        head=_head_path(model),
        bits=tracer.bits,
        failure=failure,
    )


def _with_twins(model: nn.Module, roles: Mapping[str, Role]) -> dict[str, Role]:
    """Give experts that did not run the role of a twin that did."""
    shared = alike(model)
    experts = {
        shared[path]: role
        for path, role in roles.items()
        if role.family is Family.EXPERT and path in shared
    }
    twins = {path: experts[key] for path, key in shared.items() if key in experts}
    return twins | dict(roles)


# Stacks ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stack:
    """A run of blocks: its name, and the layer its first block has."""

    name: str
    first_layer: int


def _name_stacks(
    model: PreTrainedModel, flow: _Flow, places: Mapping[str, Place]
) -> dict[int, _Stack]:
    """Name the runs of blocks; runs of one name are counted through.

    A list of modules is a run of blocks if its members mix positions. Where none is known
    to (a mixer that has no role here, a forward pass that failed), those with maps are.
    """
    placed = {path: place for path, place in places.items() if path in flow.roles}
    mixing = {p.stack for path, p in placed.items() if flow.roles[path].family in _MIXERS}
    if not mixing:
        mixing = {p.stack for p in placed.values()} or {
            places[node.path].stack for node in flow.maps if node.path in places
        }
    stacks: dict[int, _Stack] = {}
    lengths = {"encoder": 0, "decoder": 0}
    for stack in sorted(mixing):
        name = _stack_name(model, stack, flow, places)
        stacks[stack] = _Stack(name=name, first_layer=lengths[name])
        lengths[name] += _length(stack, places)
    return stacks


def _length(stack: int, places: Mapping[str, Place]) -> int:
    return 1 + max(place.layer for place in places.values() if place.stack == stack)


def _stack_name(
    model: PreTrainedModel, stack: int, flow: _Flow, places: Mapping[str, Place]
) -> str:
    """Tell encoder from decoder: by the stream it reads, or by the direction it looks in."""
    own = [n for n in flow.maps if n.path in places and places[n.path].stack == stack]
    if "decoder_input_ids" in flow.bits:
        reads = any(n.leaves & flow.bits["decoder_input_ids"] for n in own)
    else:
        reads = any(n.leaves & flow.bits["input_ids"] for n in own) and _is_causal(model)
    return "decoder" if reads else "encoder"


def _is_causal(model: PreTrainedModel) -> bool:
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


def _stack_sizes(places: Mapping[str, Place], stacks: Mapping[int, _Stack]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for stack, named in stacks.items():
        sizes[named.name] = named.first_layer + _length(stack, places)
    return {name: sizes[name] for name in ("encoder", "decoder") if name in sizes}


# Sites ----------------------------------------------------------------------------------


def _weights(model: nn.Module, flow: _Flow) -> list[_Weight]:
    """List every map and embedding, and every bare parameter with a role, in model order."""
    bare = {n.path: n for n in flow.maps if n.kind is Kind.MAP}
    weights: list[_Weight] = []
    for path, module in model.named_modules():
        if is_site(module):
            weights.append(_module_weight(path, module))
            continue
        for name, parameter in module.named_parameters(recurse=False):
            inner = f"{path}.{name}" if path else name
            if inner in bare and _can_be_adapted(parameter, flow.roles.get(inner)):
                weights.append(_parameter_weight(inner, parameter, bare[inner]))
    return weights


def _can_be_adapted(parameter: nn.Parameter, role: Role | None) -> bool:
    """Whether a bare parameter is a site: a matrix, or a stack of the matrices of experts.

    Attention written with three-dimensional parameters is none: an adapter would take its
    heads for experts.
    """
    if role is None:
        return False
    return parameter.dim() == 2 or (parameter.dim() == 3 and role.family is Family.EXPERT)


def _module_weight(path: str, module: nn.Module) -> _Weight:
    if isinstance(module, nn.Embedding):
        shape = (module.num_embeddings, module.embedding_dim)
        return _Weight(path=path, kind="embedding", d_in=shape[0], d_out=shape[1])
    if isinstance(module, nn.Linear):
        return _Weight(path=path, kind="linear", d_in=module.in_features, d_out=module.out_features)
    assert is_map(module)
    d_in, d_out = module.get_parameter("weight").shape
    return _Weight(path=path, kind="conv1d", d_in=d_in, d_out=d_out)


def _parameter_weight(path: str, parameter: nn.Parameter, node: Node) -> _Weight:
    num_experts = parameter.shape[0] if parameter.dim() == 3 else None
    return _Weight(
        path=path, kind="expert", d_in=node.d_in, d_out=node.d_out, num_experts=num_experts
    )


def _site(
    weight: _Weight,
    flow: _Flow,
    places: Mapping[str, Place],
    stacks: Mapping[int, _Stack],
) -> Site:
    place = places.get(weight.path)
    stack = stacks.get(place.stack) if place else None
    role = _role(weight, flow)
    return Site(
        path=weight.path,
        stack=stack.name if stack else None,
        layer=stack.first_layer + place.layer if stack and place else None,
        role=role,
        d_in=weight.d_in,
        d_out=weight.d_out,
        num_experts=weight.num_experts,
        kind=weight.kind,
        reason=_reason(weight, flow, in_block=stack is not None) if role == _OTHER else None,
    )


def _role(weight: _Weight, flow: _Flow) -> Role:
    if weight.kind == "embedding":
        return Role(family=Family.EMBEDDING)
    if weight.path == flow.head:
        return Role(family=Family.HEAD)
    return flow.roles.get(weight.path, _OTHER)


def _reason(weight: _Weight, flow: _Flow, *, in_block: bool) -> str:
    if flow.failure:
        return f"the forward pass could not be followed without weights ({flow.failure})"
    if weight.path not in flow.used:
        return "not used in the forward pass of tokens"
    if in_block:
        return "neither attention nor a feed-forward pattern in the forward pass"
    return "outside the blocks"


def _head_path(model: PreTrainedModel) -> str | None:
    head = _head(model)
    if head is None:
        return None
    return next((path for path, module in model.named_modules() if module is head), None)


def _tied_head(model: PreTrainedModel) -> bool:
    head, table = _head(model), model.get_input_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(table, "weight", 0)


def _head(model: PreTrainedModel) -> nn.Module | None:
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head if isinstance(head, nn.Module) else None
