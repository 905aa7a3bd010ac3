"""Which outputs of a fused map are q, k and v, or gate and up?

No table of architectures: models interleave the parts by head, by group of heads or not at all,
and a wrong part would be a wrong result. Parts are found by what the model does with them
(`attention_parts`, `gate_parts`). Where that shows no clear division, there is none here.
"""

from collections.abc import Iterable, Sequence

import torch

from loratlas.score.attention_parts import attention_parts
from loratlas.score.gate_parts import gate_parts
from loratlas.score.row_gradients import WHOLE, Part
from loratlas.score.scorer import Subject

_FUSED = ("qkv", "qk", "qv", "kv", "gate_up")


class Slices:
    """The parts of the outputs of each site of a subject.

    Attributes:
        parts: of each site, in order: indices of outputs that together are all of them; the whole
            where there are no parts.
        names: of those parts; None where there are none.
        unknown: paths of fused sites whose parts cannot be told.
    """

    def __init__(self, subject: Subject) -> None:
        known = attention_parts(subject) | gate_parts(subject)
        device = subject.base.device
        self.parts: list[Sequence[Part]] = []
        self.names: list[tuple[str, ...] | None] = []
        for site in subject.sites:
            found = known.get(site.path)
            self.parts.append([each.to(device) for each in found.values()] if found else WHOLE)
            self.names.append(tuple(found) if found else None)
        self.unknown = tuple(
            site.path
            for site in subject.sites
            if site.role.part in _FUSED and site.path not in known and not site.idle
        )

    def named(self, site: int, values: Iterable[float]) -> dict[str, float] | None:
        """Return the values of a site's parts by their names; None for a site of one part."""
        names = self.names[site]
        return None if names is None else dict(zip(names, map(float, values), strict=True))

    def of_outputs(self, site: int, values: torch.Tensor) -> dict[str, float] | None:
        """Return the sums over each part of what each output has, values of shape (d_out,)."""
        host = values.cpu()
        parts = [
            part.cpu() if isinstance(part, torch.Tensor) else part for part in self.parts[site]
        ]
        return self.named(site, (float(host[part].sum()) for part in parts))
