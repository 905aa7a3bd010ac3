"""Which pitfalls does a LoRA configuration step into on a model, though PEFT takes it?

One small function per code. Where PEFT says nothing, or something else, the message says what
really happens.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.placement.layer_pitfalls import layer_pitfalls
from loratlas.placement.peft_matching import Wrapped, shortened
from loratlas.placement.peft_names import ALL_LINEAR, Names, names_of
from loratlas.placement.peft_tables import RENAMED_EXPERTS, SHORTENED_FROM
from loratlas.placement.placement_lints import Lint, counted, groups_of, groups_text
from loratlas.placement.rank_pitfalls import rank_pitfalls
from loratlas.placement.resolve import ends, roles_of

_MOST_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """What the pitfalls look at."""

    wrapped: Wrapped
    anatomy: Anatomy
    names: Names

    @property
    def entries(self) -> tuple[str, ...]:
        """The entries of a list of targets; none where the targets are one text, or missing."""
        given = self.wrapped.given.target_modules
        return () if given is None or isinstance(given, str) else given

    @property
    def hits(self) -> Mapping[str, Site]:
        """Everything that is hit, by the name that PEFT has for it."""
        return {**self.wrapped.modules, **self.wrapped.parameters}


def pitfalls(wrapped: Wrapped, anatomy: Anatomy) -> Iterator[Lint]:
    """Yield every pitfall of a configuration that PEFT takes."""
    case = _Case(wrapped=wrapped, anatomy=anatomy, names=names_of(anatomy))
    checks = (
        _dead_target,
        _dead_exclude,
        _ambiguous_name,
        _experts_renamed,
        _expression_widened,
        _suffixes_saved,
    )
    for check in checks:
        yield from check(case)
    yield from layer_pitfalls(wrapped, anatomy)
    yield from rank_pitfalls(wrapped)


def peft_refuses(reason: str) -> Lint:
    """PEFT raises on this configuration."""
    return Lint(code="peft-refuses", message=f"PEFT refuses this configuration: {reason}")


def stacked_adapters(num_adapted: int) -> Iterator[Lint]:
    """The model holds adapters already: a second `get_peft_model` adds to them."""
    if num_adapted:
        yield Lint(
            code="stacked-adapters",
            message=(
                f"{num_adapted} modules of this model hold adapters already; a second "
                "get_peft_model adds to them, and both are counted: unload() the first, or load "
                "the base anew"
            ),
        )


def _dead_target(case: _Case) -> Iterator[Lint]:
    """A target that hits nothing: PEFT says so only when all of them do."""
    alive = _alive(case.hits)
    parameters = case.wrapped.given.target_parameters
    renamed = RENAMED_EXPERTS.get(case.anatomy.model_type, {})
    dead = [
        entry
        for entry in dict.fromkeys(case.entries)
        if entry not in alive and entry.rsplit(".", 1)[-1] not in renamed
    ]
    dead += [entry for entry in dict.fromkeys(parameters) if entry not in alive]
    if dead:
        whys: dict[str, list[str]] = {}
        for entry in dead[:_MOST_SHOWN]:
            whys.setdefault(_why_dead(entry, case), []).append(entry)
        reasons = "; ".join(f"{', '.join(entries)} {why}" for why, entries in whys.items())
        more = f"; and {len(dead) - _MOST_SHOWN} more" if len(dead) > _MOST_SHOWN else ""
        yield Lint(
            code="dead-target", message=f"{counted(dead, 'target')} hit nothing: {reasons}{more}"
        )


def _why_dead(entry: str, case: _Case) -> str:
    if entry in _alive(case.names.modules):
        return "is left out by layers_to_transform, exclude_modules or modules_to_save"
    bare = {name for name, site in case.names.parameters.items() if site.kind == "expert"}
    if entry in _alive(bare):
        return "is a parameter, which target_parameters reaches and target_modules does not"
    near = _nearest(entry, case.anatomy)
    return f"is no linear map or embedding of {case.anatomy.model}{near}"


def _dead_exclude(case: _Case) -> Iterator[Lint]:
    """An entry of ``exclude_modules`` that leaves nothing out."""
    exclude = case.wrapped.given.exclude_modules
    if exclude is None or isinstance(exclude, str):
        return
    known = _alive([*case.names.modules, *case.names.containers])
    dead = [entry for entry in exclude if entry not in known]
    if dead:
        near = _nearest(dead[0], case.anatomy)
        yield Lint(
            code="dead-exclude",
            message=f"exclude_modules: {', '.join(dead[:_MOST_SHOWN])} leaves nothing out{near}",
        )


def _ambiguous_name(case: _Case) -> Iterator[Lint]:
    """A name that stands in blocks of different kinds, as GPT-2's c_proj does."""
    found: dict[str, list[Site]] = {entry: [] for entry in case.entries}
    for name, site in case.wrapped.modules.items():
        for entry in (name, *ends(name)):
            if entry in found:
                found[entry].append(site)
    for entry, sites in found.items():
        groups = groups_of(sites)
        if len(groups) > 1:
            yield Lint(
                code="ambiguous-name",
                message=f"the target {entry} stands in {groups_text(groups)}",
            )


def _experts_renamed(case: _Case) -> Iterator[Lint]:
    """An older name of experts: PEFT targets the experts of every layer, and nothing else."""
    table = RENAMED_EXPERTS.get(case.anatomy.model_type)
    if table is None:
        return
    old = [entry for entry in case.entries if entry.rsplit(".", 1)[-1] in table]
    if not old:
        return
    lasts = {entry.rsplit(".", 1)[-1] for entry in old}
    left = [
        path
        for path in case.names.modules
        if path.rsplit(".", 1)[-1] in lasts and path not in case.wrapped.modules
    ]
    also = (
        f"; {counted(left, 'module')} of that name in dense blocks or shared experts, such as "
        f"{left[0]}, are not adapted"
        if left
        else ""
    )
    new = ", ".join(sorted({table[name] for name in lasts}))
    yield Lint(
        code="experts-renamed",
        message=(
            f"{', '.join(old[:_MOST_SHOWN])}: PEFT takes this for older names of experts or "
            f"routers and adapts the parameters {new} of every layer{also}"
        ),
    )


def _expression_widened(case: _Case) -> Iterator[Lint]:
    """One text of targets on a model with renamed experts: PEFT keeps the last names only."""
    given, read = case.wrapped.given.target_modules, case.wrapped.fields.target_modules
    if not isinstance(given, str) or isinstance(read, str) or given.lower() == ALL_LINEAR:
        return
    yield Lint(
        code="expression-widened",
        message=(
            f"target_modules {given[:80]!r}: in models of type {case.anatomy.model_type} PEFT "
            f"keeps only the last names of what it hits ({', '.join(read or ()) or 'none'}"
            f"{_and_parameters(case)}) and adapts those in every layer"
        ),
    )


def _and_parameters(case: _Case) -> str:
    added = set(case.wrapped.fields.target_parameters) - set(case.wrapped.given.target_parameters)
    return f" and the parameters {', '.join(sorted(added))}" if added else ""


def _suffixes_saved(case: _Case) -> Iterator[Lint]:
    """A long list of targets, which PEFT shortens to suffixes and saves in that form."""
    targets = case.wrapped.fields.target_modules
    if targets is None or isinstance(targets, str) or len(set(targets)) < SHORTENED_FROM:
        return
    short = shortened(set(targets), [*case.names.modules, *case.names.containers])
    if len(short) < len(set(targets)):
        yield Lint(
            code="suffixes-saved",
            message=(
                f"PEFT replaces the {len(set(targets))} targets by {len(short)} suffixes, such as "
                f"{min(short)}, and saves those; on a model with other layers they hit other sites"
            ),
        )


def _alive(names: Iterable[str]) -> set[str]:
    """Return everything that is a name, or a dotted suffix of one."""
    return {end for name in names for end in (name, *ends(name))}


def _nearest(entry: str, anatomy: Anatomy) -> str:
    """Return ``(did you mean X?)``, or the names that there are by their roles."""
    depth = entry.count(".") + 1
    tails = {".".join(path.split(".")[-depth:]) for path in anatomy.by_path}
    near = get_close_matches(entry[:200], sorted(tails), n=1)
    if near:
        return f" (did you mean {near[0]}?)"
    return f"; its roles are {roles_of(anatomy.sites)}" if depth == 1 else ""
