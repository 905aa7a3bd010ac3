"""Which pitfalls lie in the ranks, scales and further fields of a LoRA configuration?"""

from collections.abc import Iterator, Mapping

from loratlas.placement.peft_matching import Wrapped
from loratlas.placement.peft_tables import FUSED
from loratlas.placement.placement_lints import Lint

_MOST_SHOWN = 5
# Scales are ratios of small numbers in float64; anything above rounding is a real difference.
_TOLERANCE = 1e-9


def rank_pitfalls(wrapped: Wrapped) -> Iterator[Lint]:
    """Yield the pitfalls of ranks and scales in a configuration that PEFT takes."""
    yield from _rank_doubled(wrapped)
    for field, patterns in _patterns(wrapped):
        yield from _dead_pattern(wrapped, field, patterns)
        yield from _pattern_order(wrapped, field, patterns)
        yield from _pattern_denied(wrapped, field, patterns)
    yield from _global_scale(wrapped)
    yield from _more_is_trained(wrapped)


def _patterns(wrapped: Wrapped) -> Iterator[tuple[str, Mapping[str, float]]]:
    yield "rank_pattern", wrapped.fields.rank_pattern
    yield "alpha_pattern", wrapped.fields.alpha_pattern


def _rank_doubled(wrapped: Wrapped) -> Iterator[Lint]:
    """Gate and up of experts in one parameter, which gets twice the rank that was given."""
    given, read = wrapped.given.rank_pattern, wrapped.fields.rank_pattern
    added = [key for key in read if key not in given]
    if added:
        yield Lint(
            code="rank-doubled",
            message=(
                f"PEFT gives {FUSED}, which holds two maps of each expert, rank {read[added[0]]} "
                f"where r is {wrapped.given.r}; alpha is doubled, too"
            ),
        )


def _dead_pattern(wrapped: Wrapped, field: str, patterns: Mapping[str, float]) -> Iterator[Lint]:
    """A key of ``rank_pattern`` or ``alpha_pattern`` that matches nothing that is adapted."""
    used = {number for hits in wrapped.patterns[field].values() for number in hits}
    dead = [key for number, key in enumerate(patterns) if number not in used]
    if dead:
        more = ", ..." if len(dead) > _MOST_SHOWN else ""
        yield Lint(
            code="dead-pattern",
            message=(
                f"{field}: {', '.join(dead[:_MOST_SHOWN])}{more} matches nothing that is adapted"
            ),
        )


def _pattern_order(wrapped: Wrapped, field: str, patterns: Mapping[str, float]) -> Iterator[Lint]:
    """A pattern that comes after a wider one: PEFT takes the first match, so it is not used."""
    keys, values = list(patterns), list(patterns.values())
    hidden = [
        (name, hits[0], later)
        for name, hits in wrapped.patterns[field].items()
        for later in hits[1:]
        if values[later] != values[hits[0]]
    ]
    if hidden:
        name, first, later = hidden[0]
        yield Lint(
            code="pattern-order",
            message=(
                f"{field}: the first match decides, so {name} gets {values[first]:g} from "
                f"{keys[first]!r} and not {values[later]:g} from {keys[later]!r}, which comes "
                "later; write exact paths"
            ),
        )


def _pattern_denied(wrapped: Wrapped, field: str, patterns: Mapping[str, float]) -> Iterator[Lint]:
    """A pattern for a parameter: PEFT warns that it is ignored, and applies it."""
    by_module: set[int] = set()
    by_parameter: set[int] = set()
    for name, hits in wrapped.patterns[field].items():
        (by_module if name in wrapped.modules else by_parameter).update(hits)
    given = {*wrapped.given.rank_pattern, *wrapped.given.alpha_pattern}
    keys = list(patterns)
    denied = [keys[n] for n in sorted(by_parameter - by_module) if keys[n] in given]
    if denied:
        yield Lint(
            code="pattern-denied",
            message=(
                f"{field}: PEFT warns that {denied[0]} matches no module and is ignored; it "
                "matches parameters, and takes effect"
            ),
        )


def _global_scale(wrapped: Wrapped) -> Iterator[Lint]:
    """Scales that a reader of one global alpha and rank, as vLLM's, does not see."""
    fields = wrapped.fields
    power = 0.5 if fields.use_rslora else 1.0
    uniform = fields.lora_alpha / fields.r**power if fields.r > 0 else None
    other = [
        adapter
        for adapter in wrapped.adapters
        if uniform is None or abs(adapter.alpha / adapter.rank**power - uniform) > _TOLERANCE
    ]
    if other:
        first = other[0]
        yield Lint(
            code="global-scale",
            message=(
                f"{len(other)} sites, such as {first.site.path}, have scale "
                f"{first.alpha / first.rank**power:g}; a server that reads one global alpha and "
                f"rank, as vLLM does, would apply {0 if uniform is None else uniform:g}"
            ),
        )


def _more_is_trained(wrapped: Wrapped) -> Iterator[Lint]:
    """Fields that train more than A and B: biases, whole modules, magnitudes."""
    given = wrapped.given
    more = {
        f"bias: {given.bias}": given.bias != "none",
        f"modules_to_save: {', '.join(given.modules_to_save)}": bool(given.modules_to_save),
        "use_dora": given.use_dora,
        "lora_bias": given.lora_bias,
    }
    fields = [name for name, is_set in more.items() if is_set]
    if fields:
        yield Lint(
            code="more-is-trained",
            message=f"{'; '.join(fields)}: more is trained than the adapters that are counted here",
        )
