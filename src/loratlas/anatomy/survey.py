"""What is a built model made of? Modules and the graph of its forward pass → `Anatomy`.

Embedding tables have the role ``embedding`` wherever they stand: token, position and type
tables, and the tables of relative attention bias inside a block. The last hold a score per
distance and head, no features, and are left out by rules such as ``all`` in this way.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from loratlas.anatomy.blocks import Place, block_places
from loratlas.anatomy.follow import Flow, follow, is_causal
from loratlas.anatomy.reasons import UNKNOWN
from loratlas.anatomy.sites import IDLE, Anatomy, Family, Role, Site
from loratlas.anatomy.towers import silent_towers
from loratlas.anatomy.weights import Weight, head_path, tied_head, weights

_OTHER = Role(family=Family.OTHER)
_MIXERS = (Family.ATTENTION, Family.CROSS_ATTENTION, Family.RECURRENT)
_NO_MATRIX = "its parameter has three dimensions and is no stack of matrices, as adapters need it"


def survey(name: str, model: PreTrainedModel) -> Anatomy:
    """Return the anatomy of a model that lies on the meta device.

    Args:
        name: the model as it was asked for.
        model: as `build` returns it.
    """
    places = block_places(model)
    flow = follow(model, places)
    stacks = _name_stacks(model, flow, places)
    whole = _Whole(
        flow=flow,
        places=places,
        stacks=stacks,
        towers={} if flow.failure else silent_towers(model, flow.ran),
        head=head_path(model),
    )
    sites = tuple(_site(weight, whole) for weight in weights(model, flow, places))
    return Anatomy(
        model=name,
        model_type=str(model.config.model_type),
        architecture=type(model).__name__,
        stacks=_stack_sizes(places, stacks),
        num_parameters=sum(p.numel() for p in model.parameters()),
        tied_head=tied_head(model),
        sites=sites,
    )


# Stacks ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stack:
    """A run of blocks: its name, and the layer its first block has."""

    name: str
    first_layer: int


def _name_stacks(
    model: PreTrainedModel, flow: Flow, places: Mapping[str, Place]
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


def _stack_name(model: PreTrainedModel, stack: int, flow: Flow, places: Mapping[str, Place]) -> str:
    """Tell encoder from decoder: by the stream it reads, or by the direction it looks in."""
    own = [n for n in flow.maps if n.path in places and places[n.path].stack == stack]
    if "decoder_input_ids" in flow.bits:
        reads = any(n.leaves & flow.bits["decoder_input_ids"] for n in own)
    else:
        reads = any(n.leaves & flow.bits["input_ids"] for n in own) and is_causal(model)
    return "decoder" if reads else "encoder"


def _stack_sizes(places: Mapping[str, Place], stacks: Mapping[int, _Stack]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for stack, named in stacks.items():
        sizes[named.name] = named.first_layer + _length(stack, places)
    return {name: sizes[name] for name in ("encoder", "decoder") if name in sizes}


# Sites ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Whole:
    """What is known of the model as a whole when a site is described.

    Attributes:
        flow: what the forward pass showed.
        places: the place of each path in a block.
        stacks: the runs of blocks, by the stack of a place.
        towers: what each tower reads, by its path.
        head: path of the language model head, None without one.
    """

    flow: Flow
    places: Mapping[str, Place]
    stacks: Mapping[int, _Stack]
    towers: Mapping[str, str]
    head: str | None


def _site(weight: Weight, whole: _Whole) -> Site:
    place = whole.places.get(weight.path)
    stack = whole.stacks.get(place.stack) if place else None
    role, reason = _role(weight, whole, in_block=stack is not None)
    return Site(
        path=weight.path,
        stack=stack.name if stack else None,
        layer=stack.first_layer + place.layer if stack and place else None,
        role=role,
        d_in=weight.d_in,
        d_out=weight.d_out,
        num_experts=weight.num_experts,
        kind=weight.kind,
        reason=reason,
    )


def _role(weight: Weight, whole: _Whole, *, in_block: bool) -> tuple[Role, str | None]:
    """Return the role of a site, and the reason where it is ``other`` or the site is idle."""
    tower = _tower(weight.path, whole.towers)
    if tower is not None:
        return _OTHER, f"{tower} tower: {IDLE}"
    known = whole.flow.roles.get(weight.path)
    if not weight.adaptable:
        return _OTHER, f"{known}, but {_NO_MATRIX}" if known else _NO_MATRIX
    if weight.kind == "embedding":
        known = Role(family=Family.EMBEDDING)
    elif weight.path == whole.head:
        known = Role(family=Family.HEAD)
    if known is None:
        return _OTHER, _reason(weight, whole.flow, in_block=in_block)
    return known, _why_idle(weight.path, known, whole.flow)


def _tower(path: str, towers: Mapping[str, str]) -> str | None:
    return next((kind for start, kind in towers.items() if path.startswith(f"{start}.")), None)


def _why_idle(path: str, role: Role | None, flow: Flow) -> str | None:
    """Say why tokens alone do not run a site; None where they do, or where nobody can know.

    An expert that was not chosen for the few tokens of the forward pass is not idle.
    """
    chosen = role is not None and role.family is Family.EXPERT
    if flow.failure or chosen or path in flow.on_tokens:
        return None
    if path in flow.ran:
        return f"runs only with the states of an encoder: {IDLE}"
    return f"its weight is read without its module: {IDLE}" if path in flow.used else IDLE


def _reason(weight: Weight, flow: Flow, *, in_block: bool) -> str:
    if flow.failure:
        return f"the forward pass could not be followed without weights ({flow.failure})"
    idle = _why_idle(weight.path, None, flow)
    if idle is not None:
        return idle
    return flow.why.get(weight.path, UNKNOWN) if in_block else "outside the blocks"
