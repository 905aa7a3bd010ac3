"""Which outputs of a fused gate and up projection are gates?

What the down projection reads is affine in `up` where the gates are held, and not in the gates
where `up` is held, because gates go through an activation. Layouts in use are tried in turn: halves
and alternating outputs, either part first. One of them has to fit and all others must not, or there
are no parts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from loratlas.anatomy.sites import Site
from loratlas.score.sample import holder_of
from loratlas.score.scorer import Subject
from loratlas.score.stand_ins import only_reader, read_with

# Tokens of one trial: four in which `up` changes, four in which the gates do.
_NUM_TOKENS = 8
# What bf16 leaves of an affine function's zero, relative to its largest value; activations leave
# more than ten times as much between -1 and 1.
_AFFINE, _CURVED = 0.02, 0.1


class _Layout(NamedTuple):
    gate: torch.Tensor
    up: torch.Tensor


def gate_parts(subject: Subject) -> dict[str, dict[str, torch.Tensor]]:
    """Return the indices of gate and up among the outputs of fused sites, where they show."""
    fused = [site for site in subject.sites if site.role.part == "gate_up" and not site.idle]
    maps = {site: only_reader(site, "down", subject.anatomy) for site in fused}
    fits: dict[Site, list[_Layout]] = {site: [] for site in fused}
    for number in range(len(_layouts(2))):
        read = _read_by_down(subject, maps, number)
        for site in fused:
            made = _by_experts(subject, site, number) if site.kind == "expert" else read.get(site)
            if made is not None and _fits(made):
                fits[site].append(_layouts(site.d_out)[number])
    return {
        site.path: {"gate": found[0].gate, "up": found[0].up}
        for site, found in fits.items()
        if len(found) == 1
    }


def _layouts(d_out: int) -> list[_Layout]:
    index = torch.arange(d_out)
    first, second = index[: d_out // 2], index[d_out // 2 :]
    even, odd = index[::2], index[1::2]
    return [
        _Layout(first, second),
        _Layout(second, first),
        _Layout(even, odd),
        _Layout(odd, even),
    ]


def _trial(site: Site, number: int, seed: int) -> torch.Tensor:
    """Return stand-ins for the fused outputs that a layout is tried with, shape (8, d_out)."""
    layout = _layouts(site.d_out)[number]
    generator = torch.Generator().manual_seed(seed % 2**63)
    gate, other_gate, up, other_up = 2 * torch.rand(4, site.d_out // 2, generator=generator) - 1
    zero = torch.zeros_like(up)
    outputs = torch.empty(_NUM_TOKENS, site.d_out)
    outputs[:4, layout.gate] = gate
    outputs[:4, layout.up] = torch.stack([up, other_up, up + other_up, zero])
    outputs[4:, layout.gate] = torch.stack([gate, other_gate, gate + other_gate, zero])
    outputs[4:, layout.up] = up
    return outputs


def _fits(made: torch.Tensor) -> bool:
    """Whether what was made of a trial, shape (8, width), is affine in up and not in gates."""
    largest = float(made.abs().max())
    by_up, by_gate = made[:4].float(), made[4:].float()
    bend_of_up, bend_of_gate = (
        float((each[0] + each[1] - each[2] - each[3]).abs().max()) for each in (by_up, by_gate)
    )
    return bend_of_up <= _AFFINE * largest and bend_of_gate > _CURVED * largest


def _read_by_down(
    subject: Subject, downs: dict[Site, Site | None], number: int
) -> dict[Site, torch.Tensor]:
    """Return what the down maps read of the trials at the fused maps before them."""
    pairs = {site: down for site, down in downs.items() if down and site.kind != "expert"}
    if not pairs:
        return {}
    with torch.no_grad():
        read = read_with(
            subject,
            {site.path: _stand_in(_trial(site, number, subject.seed)) for site in pairs},
            [down.path for down in pairs.values()],
            num_rows=1,
            num_tokens=_NUM_TOKENS,
        )
    return {
        site: read[down.path].reshape(_NUM_TOKENS, -1)
        for site, down in pairs.items()
        if down.path in read and read[down.path].numel() == _NUM_TOKENS * site.d_out // 2
    }


def _stand_in(trial: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def stand_in(output: torch.Tensor) -> torch.Tensor:
        return trial.to(output).reshape(output.shape)

    return stand_in


def _by_experts(subject: Subject, site: Site, number: int) -> torch.Tensor | None:
    """Return what experts make of a trial; their gating is a function of its own."""
    module, name = holder_of(subject.base.model, site)
    gating: Any = getattr(module, "_apply_gate", None)
    if gating is None:
        return None
    with torch.no_grad():
        made: torch.Tensor = gating(_trial(site, number, subject.seed).to(getattr(module, name)))
    return made
