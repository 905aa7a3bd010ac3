"""Which outputs of a fused projection are queries, keys and values?

Attention itself tells. In a text of one token, softmax gives its one value the weight 1: what the
result depends on is a value. In a text of two tokens, what the last token's result depends on at
the first token is a value or a key; what else it depends on, at the last token, is a query. This
holds whichever way attention looks, and for any positions, norms, grouping and interleaving. What
goes on otherwise (an attention that is no softmax, a fourth part that scales the result) leaves
counts that no attention has, and then there are no parts.
"""

from collections.abc import Mapping
from functools import partial

import torch

from loratlas.anatomy.sites import Family, Site
from loratlas.score.scorer import Subject
from loratlas.score.stand_ins import only_reader, read_with

_FUSED = ("qkv", "qk", "qv", "kv")
_FAMILIES = (Family.ATTENTION, Family.CROSS_ATTENTION)
# Outputs are replaced by random numbers away from zero: a gradient that nearly vanishes by chance
# in one draw does not in all of them.
_NUM_DRAWS = 6
# Gradients of outputs that have no influence are zero, up to rounding.
_ROUNDING = 1e-4
# A value's gradient in a text of one token is about 1; that of a query or key would be zero, but
# kernels in bf16 leave up to 0.01 of it.
_VALUE_SHARE, _SMALLEST_VALUE = 0.1, 1e-3


def attention_parts(subject: Subject) -> dict[str, dict[str, torch.Tensor]]:
    """Return the indices of q, k and v among the outputs of fused sites, where they show."""
    pairs = _pairs(subject)
    if not pairs:
        return {}
    alone = _influences(subject, pairs, num_tokens=1)
    paired = _influences(subject, pairs, num_tokens=2)
    found = {}
    for site, _ in pairs:
        if site.path in alone and site.path in paired:
            parts = _divided(alone[site.path], paired[site.path])
            if _are_those_of(parts, site):
                found[site.path] = {letter: parts[letter] for letter in site.role.part}
    return found


def _pairs(subject: Subject) -> list[tuple[Site, Site]]:
    """Return the fused sites, each with the map that reads what its attention makes."""
    fused = [
        site
        for site in subject.sites
        if site.role.family in _FAMILIES and site.role.part in _FUSED and site.kind != "expert"
    ]
    readers = [only_reader(site, "o", subject.anatomy) for site in fused]
    return [
        (site, reader)
        for site, reader in zip(fused, readers, strict=True)
        if reader is not None and not site.idle
    ]


def _influences(
    subject: Subject, pairs: list[tuple[Site, Site]], *, num_tokens: int
) -> dict[str, torch.Tensor]:
    """Return how much the last token's result depends on each output at each token.

    Returns:
        the largest absolute gradient of all draws, shape (tokens, d_out), by the site's path.
    """
    leaves: dict[str, torch.Tensor] = {}

    def stand_in(path: str, output: torch.Tensor) -> torch.Tensor:
        sizes, signs = torch.rand(2, *output.shape, generator=_generator(subject.seed))
        leaves[path] = ((0.5 + sizes) * (signs - 0.5).sign()).to(output).requires_grad_()
        return leaves[path].clone()

    with torch.enable_grad():
        read = read_with(
            subject,
            {site.path: partial(stand_in, site.path) for site, _ in pairs},
            [reader.path for _, reader in pairs],
            num_rows=_NUM_DRAWS,
            num_tokens=num_tokens,
        )
        found = {}
        for site, reader in pairs:
            leaf, result = leaves.get(site.path), read.get(reader.path)
            if leaf is None or result is None or not leaf.dim() == result.dim() == 3:
                continue
            weights = 0.5 + torch.rand(result.shape[2], generator=_generator(subject.seed))
            aim = (result[:, -1] * weights.to(result)).sum()
            (gradient,) = torch.autograd.grad(aim, leaf, retain_graph=True, allow_unused=True)
            if gradient is not None:
                found[site.path] = gradient.float().abs().amax(0)
    return found


def _divided(alone: torch.Tensor, paired: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the indices of q, k and v, by their influence in texts of one and of two tokens."""
    first, last = paired
    value = alone[0] > max(_VALUE_SHARE * float(alone.max()), _SMALLEST_VALUE)
    reached = first > _ROUNDING * float(paired.max())
    query = (last > _ROUNDING * float(paired.max())) & ~reached & ~value
    parts = {"q": query, "k": reached & ~value, "v": value}
    return {letter: torch.nonzero(each)[:, 0] for letter, each in parts.items()}


def _are_those_of(parts: Mapping[str, torch.Tensor], site: Site) -> bool:
    """Whether the parts are those of the site's role, cover its outputs, and fit each other."""
    counts = {letter: len(indices) for letter, indices in parts.items()}
    if {letter for letter in counts if counts[letter]} != set(site.role.part):
        return False
    if sum(counts.values()) != site.d_out:
        return False
    if counts["k"] and counts["v"] and counts["k"] != counts["v"]:
        return False
    return not (counts["q"] and counts["k"]) or counts["q"] % counts["k"] == 0


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % 2**63)
