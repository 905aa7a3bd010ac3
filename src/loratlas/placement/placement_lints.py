"""What a person should know about the sites, ranks and scales of a placement.

These hold however the placement came about, from a rule or from an existing configuration.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass

from loratlas.anatomy.sites import IDLE, Family, Site
from loratlas.placement.peft_config import reached_as_parameters
from loratlas.placement.placement import Adapter, Placement
from loratlas.placement.resolve import roles_of

# A name that stands in two of these groups is ambiguous; experts beside dense blocks, or cross-
# beside self-attention, are what a person means by the one word.
_GROUPS = {
    Family.CROSS_ATTENTION: Family.ATTENTION,
    Family.EXPERT: Family.FEED_FORWARD,
    Family.SHARED_EXPERT: Family.FEED_FORWARD,
}
# How the reason of a site in a tower ends; see `anatomy.survey`.
_TOWER = f"tower: {IDLE}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lint:
    """One warning: a stable code, and a message for a person."""

    code: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the warning as plain data."""
        return {"code": self.code, "message": self.message}


def placement_lints(
    placement: Placement, *, dropout: float = 0.0, checkpointing: bool = False
) -> Iterator[Lint]:
    """Yield every warning about a placement.

    Args:
        placement: what is placed; it may be empty.
        dropout: dropout on the adapters' input.
        checkpointing: whether training uses gradient checkpointing.
    """
    yield from _rank_exceeds_dimension(placement)
    yield from _scale_varies(placement)
    yield from _router_adapted(placement)
    yield from _head_tied(placement)
    yield from _mixed_towers(placement)
    yield from _idle_site(placement)
    yield from _role_unknown(placement)
    yield from _expert_dropout(placement, dropout)
    yield from _frozen_prefix_lost(placement, checkpointing)


def groups_of(sites: Sequence[Site]) -> dict[Family, list[Site]]:
    """Return sites by the kind of block they stand in; cross-attention is attention here."""
    groups: dict[Family, list[Site]] = {}
    for site in sites:
        family = site.role.family
        groups.setdefault(_GROUPS.get(family, family), []).append(site)
    return groups


def groups_text(groups: dict[Family, list[Site]]) -> str:
    """Return ``attention and feed_forward:`` with the roles and one path of each."""
    found = (f"{roles_of(sites)}, such as {sites[0].path}" for sites in groups.values())
    return f"{' and '.join(groups)}: {'; '.join(found)}"


def names_layer(entry: str) -> bool:
    """Whether a dotted name holds a number, as that of a layer."""
    return any(segment.isdigit() for segment in entry.split("."))


def both_stacks(what: str, sites: Iterable[Site]) -> Iterator[Lint]:
    """A layer that is meant by its number and hit in encoder and decoder, as block.0 of T5."""
    stacks: dict[str, list[Site]] = {}
    for site in sites:
        if site.stack is not None:
            stacks.setdefault(site.stack, []).append(site)
    if len(stacks) > 1:
        found = (f"{len(hit)} in the {name}, such as {hit[0].path}" for name, hit in stacks.items())
        yield Lint(
            code="both-stacks",
            message=f"{what} counts the layers of each stack by itself: {'; '.join(found)}",
        )


def layer_ranges(layers: Iterable[int | None]) -> str:
    """Return layer indices as ranges: 0, 1, 2, 5 becomes ``0..2, 5``."""
    indices = sorted({layer for layer in layers if layer is not None})
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in runs)


def counted(things: Sized, noun: str) -> str:
    """Return ``1 site`` or ``3 sites``."""
    return f"{len(things)} {noun}{'s' if len(things) != 1 else ''}"


def sites_text(adapters: Sequence[Adapter]) -> str:
    """Return the path of one site, or the number of several."""
    number = len(adapters)
    return adapters[0].site.path if number == 1 else f"{number} sites"


def _rank_exceeds_dimension(placement: Placement) -> Iterator[Lint]:
    """A rank above the smaller side of the map: more parameters than a full update."""
    over = [a for a in placement.adapters if a.rank > min(a.site.d_in, a.site.d_out)]
    if over:
        first = over[0]
        yield Lint(
            code="rank-exceeds-dimension",
            message=(
                f"{sites_text(over)}: the rank is above the smaller dimension, such as rank "
                f"{first.rank} for {first.site.d_in} x {first.site.d_out} at {first.site.path}; "
                "the update cannot have a higher rank than that"
            ),
        )


def _scale_varies(placement: Placement) -> Iterator[Lint]:
    """Different ranks under a fixed alpha: the scale, too, differs between sites."""
    scales = {float(f"{placement.scale(a):.9g}"): a.rank for a in placement.adapters}
    if len(scales) > 1:
        low, high = min(scales), max(scales)
        yield Lint(
            code="scale-varies",
            message=(
                f"the scale differs between sites, from {low:g} (rank {scales[low]}) to {high:g} "
                f"(rank {scales[high]}); scaling: constant, in PEFT an alpha_pattern, keeps it "
                "equal"
            ),
        )


def _router_adapted(placement: Placement) -> Iterator[Lint]:
    """An adapted router: training changes which experts see a token."""
    routers = [a for a in placement.adapters if a.site.role.family is Family.ROUTER]
    if routers:
        yield Lint(
            code="router-adapted",
            message=(
                f"{sites_text(routers)}: the router is adapted, so the choice of experts changes"
            ),
        )


def _head_tied(placement: Placement) -> Iterator[Lint]:
    """An adapter on one side of a tensor that embedding and head share."""
    anatomy = placement.anatomy
    heads = [site for site in anatomy.sites if site.role.family is Family.HEAD]
    shapes = {(head.d_out, head.d_in) for head in heads}
    tied = [
        adapter
        for adapter in placement.adapters
        if adapter.site.role.family is Family.HEAD
        or (
            adapter.site.role.family is Family.EMBEDDING
            and (adapter.site.d_in, adapter.site.d_out) in shapes
        )
    ]
    if tied and anatomy.tied_head:
        yield Lint(
            code="head-tied",
            message=(
                f"{sites_text(tied)}: head and embedding share their weights in this model, and an "
                "adapter changes one of them only; merging it unties them"
            ),
        )


def _mixed_towers(placement: Placement) -> Iterator[Lint]:
    """Adapters in the language model and in another tower, such as one for images."""
    inside, towers = _by_tower(placement)
    if towers and inside:
        yield Lint(
            code="mixed-towers",
            message=(
                f"{len(inside)} sites of the language model and {len(towers)} of another tower "
                f"are adapted, such as {inside[0].site.path} and {towers[0].site.path}; a text "
                "without images or sound does not train the second"
            ),
        )


def _by_tower(placement: Placement) -> tuple[list[Adapter], list[Adapter]]:
    """Return the adapters inside blocks of the language model, and those in towers."""
    towers = [a for a in placement.adapters if _in_tower(a.site)]
    return [a for a in placement.adapters if a.site.in_block], towers


def _in_tower(site: Site) -> bool:
    return site.reason is not None and site.reason.endswith(_TOWER)


def _idle_site(placement: Placement) -> Iterator[Lint]:
    """A site that the forward pass of tokens leaves out: its adapter gets no gradient."""
    inside, towers = _by_tower(placement)
    told = set(towers) if inside else set()  # by mixed-towers
    idle = [a for a in placement.adapters if a.site.idle and a not in told]
    if idle:
        count = sum(a.rank * a.site.parameters_per_rank for a in idle)
        layers = layer_ranges(a.site.layer for a in idle)
        where = f" in layers {layers}" if layers else ""
        yield Lint(
            code="idle-site",
            message=(
                f"{roles_of([a.site for a in idle])}{where}: no gradient reaches these adapters "
                f"from tokens alone, and {count:,} parameters stay as they are; such as "
                f"{idle[0].site.path} ({idle[0].site.reason})"
            ),
        )


def _role_unknown(placement: Placement) -> Iterator[Lint]:
    """A site of role ``other``: what an adapter changes there is not known."""
    unknown = [
        a for a in placement.adapters if a.site.role.family is Family.OTHER and not a.site.idle
    ]
    if unknown:
        first = unknown[0].site
        yield Lint(
            code="role-unknown",
            message=(
                f"no role is known for {len(unknown)} of {len(placement.adapters)} sites, such as "
                f"{first.path} ({first.reason}); a rule of roles, such as "
                "attention | feed_forward, leaves them out"
            ),
        )


def _expert_dropout(placement: Placement, dropout: float) -> Iterator[Lint]:
    """Dropout on adapters of parameters, as fused experts have them, which PEFT refuses."""
    experts = reached_as_parameters(placement) if dropout else []
    if experts:
        yield Lint(
            code="expert-dropout",
            message=(
                f"{sites_text(experts)}: PEFT refuses dropout on adapters of parameters, such as "
                f"those of experts; dropout is {dropout:g} and has to be 0"
            ),
        )


def _frozen_prefix_lost(placement: Placement, checkpointing: bool) -> Iterator[Lint]:
    """Checkpointing asks for input gradients, so the backward pass runs to the first layer."""
    below = _blocks_below(placement)
    if checkpointing and below:
        yield Lint(
            code="frozen-prefix-lost",
            message=(
                f"{below} layers lie below the lowest adapter, and the backward pass could end "
                "above them; gradient checkpointing switches input gradients on, so that it runs "
                "through all layers"
            ),
        )


def _blocks_below(placement: Placement) -> int:
    """Return how many blocks a token passes before the first adapter."""
    sites = [adapter.site for adapter in placement.adapters]
    if not sites or any(site.role.family is Family.EMBEDDING for site in sites):
        return 0
    before = 0
    for stack, length in placement.anatomy.stacks.items():
        layers = [site.layer for site in sites if site.stack == stack and site.layer is not None]
        if layers:
            return before + min(layers)
        before += length
    return before
