"""How far does a block turn the hidden states that pass through it? ShortGPT's block influence.

1 - cos(h_in, h_out), mean over tokens (X. Men et al., arXiv 2403.03853, equation 1). It was made to
find blocks that can be left out: it says how redundant a block is, and not how much would be won by
adapting it. All sites of a block share its value.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.allocate.table import Granularity
from loratlas.anatomy.sites import Site
from loratlas.score.inputs import Call, Watched, read_forward
from loratlas.score.scorer import Found, Needs, Subject
from loratlas.score.token_means import TokenMeans

Floats = NDArray[np.float64]


class BlockInfluence:
    """How far blocks turn hidden states."""

    name = "block_influence"
    title = "1 - cosine between the hidden states before and after the block of a site"
    unit = "1 - cosine"
    higher_is_better = True
    granularity: Granularity = "layer"
    needs = Needs()

    def why_not(self, subject: Subject) -> str | None:
        """Return which site stands in no block, or None."""
        for site in subject.sites:
            if not site.in_block or _block_path(site) is None:
                return f"{site.path} stands in no block"
        return None

    def measure(self, subject: Subject) -> Found:
        """Score the sites by their blocks.

        Raises:
            TrialError: a block mixes rows, or no token passes through it in a half of them.
        """
        blocks = _blocks(subject)
        turned = TokenMeans([block.path for block in blocks], len(subject.rows))

        def add(call: Call) -> None:
            before, after = call.inputs.float(), call.outputs.float()
            told = (before.any(1) & after.any(1)).cpu().numpy()
            cosines = torch.nn.functional.cosine_similarity(before, after, dim=1)
            turned.add(call.site, call.rows[told], 1 - cosines.cpu().double().numpy()[told])

        read_forward(subject, blocks, add)
        numbers = {block.path: number for number, block in enumerate(blocks)}
        owners = np.array([numbers[str(_block_path(site))] for site in subject.sites])
        return Found(
            values=turned.means()[owners],
            stderr=turned.stderr(np.eye(len(blocks)))[owners],
            halves=turned.of_halves()[:, owners],
            num_tokens=turned.num_tokens[owners],
            num_forwards=len(subject.rows),
        )


def _blocks(subject: Subject) -> Sequence[Watched]:
    """Return the blocks that the subject's sites stand in."""
    sources = {str(_block_path(site)): site.stack == "encoder" for site in subject.sites}
    return [
        Watched(path, subject.base.model.get_submodule(path), reads_source)
        for path, reads_source in sources.items()
    ]


def _block_path(site: Site) -> str | None:
    """Return the path up to the number of the block in its list; None without one."""
    parts = site.path.split(".")
    ends = [place for place, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[: ends[0] + 1]) if ends else None
