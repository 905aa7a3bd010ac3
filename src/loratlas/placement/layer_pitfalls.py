"""Which layers does a LoRA configuration really choose, though PEFT says nothing or else?"""

from collections.abc import Iterator

from loratlas.anatomy.sites import Anatomy
from loratlas.placement.peft_matching import Wrapped
from loratlas.placement.placement_lints import (
    Lint,
    both_stacks,
    counted,
    layer_ranges,
    names_layer,
)
from loratlas.placement.resolve import ends

_MOST_SHOWN = 5


def layer_pitfalls(wrapped: Wrapped, anatomy: Anatomy) -> Iterator[Lint]:
    """Yield every pitfall about the layers of a configuration that PEFT takes."""
    yield from _layer_out_of_range(wrapped)
    yield from _layers_ignored(wrapped)
    yield from _wrong_layer(wrapped, anatomy)
    yield from _stacks(wrapped)


def _layer_out_of_range(wrapped: Wrapped) -> Iterator[Lint]:
    """A layer that is not there, or a negative one: PEFT drops it in silence."""
    layers = wrapped.given.layers_to_transform
    there = {layer for layer in wrapped.layers.values() if layer is not None}
    if layers is None or not there:
        return
    chosen = (layers,) if isinstance(layers, int) else layers
    dropped = [layer for layer in dict.fromkeys(chosen) if layer not in there]
    if dropped:
        given = ", ".join(map(str, dropped[:_MOST_SHOWN]))
        yield Lint(
            code="layer-out-of-range",
            message=(
                f"layers_to_transform: {given} {'is' if len(dropped) == 1 else 'are'} not there "
                f"and dropped; the targets stand in layers {layer_ranges(there)}, and PEFT does "
                "not count from the end"
            ),
        )


def _layers_ignored(wrapped: Wrapped) -> Iterator[Lint]:
    """Sites outside the chosen layers that are adapted all the same, or a choice of none."""
    layers = wrapped.given.layers_to_transform
    if layers is None:
        return
    if layers == ():
        yield Lint(
            code="layers-ignored",
            message="layers_to_transform is an empty list, which means every layer, not none",
        )
        return
    chosen = {layers} if isinstance(layers, int) else set(layers)
    outside = [
        name
        for name, site in {**wrapped.modules, **wrapped.parameters}.items()
        if name not in wrapped.layers and site.layer not in chosen
    ]
    if outside:
        yield Lint(
            code="layers-ignored",
            message=(
                f"layers_to_transform does not hold for {counted(outside, 'site')}, such as "
                f"{outside[0]}: PEFT looks for a layer neither in a name that is given in full "
                "nor in parameters"
            ),
        )


def _wrong_layer(wrapped: Wrapped, anatomy: Anatomy) -> Iterator[Lint]:
    """A number in a path that PEFT takes for the layer, and that is none."""
    wrong = [
        (name, layer)
        for name, layer in wrapped.layers.items()
        if layer is not None and name in wrapped.modules
        if anatomy.by_path[name].layer != layer
    ]
    if wrong:
        name, layer = wrong[0]
        yield Lint(
            code="wrong-layer",
            message=(
                f"{len(wrong)} sites are taken for another layer than theirs: PEFT reads layer "
                f"{layer} in {name}, which is layer {anatomy.by_path[name].layer}"
            ),
        )


def _stacks(wrapped: Wrapped) -> Iterator[Lint]:
    if wrapped.given.layers_to_transform not in (None, ()):
        chosen = [wrapped.modules[name] for name in wrapped.layers if name in wrapped.modules]
        yield from both_stacks("layers_to_transform", chosen)
    targets = wrapped.given.target_modules
    for entry in () if targets is None or isinstance(targets, str) else dict.fromkeys(targets):
        if names_layer(entry):
            hit = [site for name, site in wrapped.modules.items() if entry in (name, *ends(name))]
            yield from both_stacks(f"the target {entry}", hit)
