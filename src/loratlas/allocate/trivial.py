"""What can be said of a site without data and weights, beside its shape? No torch.

The controls score sites by it (`score.controls`), and what scorers say of groups of sites is held
against it (`analysis.agreement`).
"""

from itertools import accumulate

from loratlas.anatomy.sites import Anatomy, Family, Site


def depth(site: Site, anatomy: Anatomy) -> int:
    """Return the number of a site's block, from 1 on; a decoder's blocks come after an encoder's.

    Embeddings come before every block, and whatever else stands outside the blocks after them.
    """
    if site.layer is None or site.stack is None:
        return 0 if site.role.family is Family.EMBEDDING else anatomy.num_layers + 1
    sizes = anatomy.stacks.values()
    before = dict(zip(anatomy.stacks, accumulate(sizes, initial=0), strict=False))
    return before[site.stack] + site.layer + 1
