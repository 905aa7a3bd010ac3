"""In how many directions does a site's input vary, for ranks to follow? EVA.

Explained Variance Adaptation (F. Paischer et al., arXiv 2410.07170; peft/tuners/lora/eva.py) takes
the principal components of what each map reads, and gives all ranks together to the components with
the largest share of their own site's variance. Here the shares are the marginal values of a site's
ranks, so that an allocator with a budget in ranks does the same; `peft_ranks` has PEFT's own rule
for equal shares. Neither targets nor weights play a part: sites that read the same input, as q, k
and v do, have the same score.

As in PEFT by default, those tokens count that are targets themselves. PEFT reads batches over and
over until the directions of an input hardly turn, and leaves out batches of too few tokens; here
each row is read once, and every row is.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.allocate.table import Granularity
from loratlas.errors import TrialError
from loratlas.score.inputs import Call, is_expert_module, maps_of, read_forward, why_no_inputs
from loratlas.score.principal import PrincipalComponents
from loratlas.score.resampling import halves
from loratlas.score.scorer import Found, Needs, Subject

Floats = NDArray[np.float64]

_RHO = 2.0
"""PEFT's default: no site gets more than twice the rank of the configuration."""


class Eva:
    """Shares of the input's variance, direction by direction."""

    name = "eva"
    title = "share of the input's variance in as many directions as the study's rank"
    unit = "explained variance"
    higher_is_better = True
    granularity: Granularity = "site"
    needs = Needs()

    def why_not(self, subject: Subject) -> str | None:
        """Return which site's input cannot be seen, or which of its tokens count, or None."""
        expert = next(filter(is_expert_module, subject.sites), None)
        if expert is not None:
            return (
                f"{expert.path} is a map of one expert, and which of the tokens that it is sent "
                "are targets does not show; choose among the other sites"
            )
        return why_no_inputs(subject)

    def measure(self, subject: Subject) -> Found:
        """Score the sites; a value is the sum of its curve up to the rank of the study.

        Raises:
            TrialError: what a site reads is no number, or it reads nothing in a half of the rows.
        """
        inputs = Inputs(subject)
        read_forward(subject, maps_of(subject), inputs.add)
        spectra = [inputs.spectrum(number) for number in range(len(subject.sites))]
        curves = [spectrum.whole.ratios() for spectrum in spectra]
        rank = subject.lora.rank
        firsts = [spectrum.first for spectrum in spectra]
        seconds = [spectrum.second.ratios() for spectrum in spectra]
        return Found(
            values=_sums(curves, rank),
            curves=curves,
            halves=np.stack([_sums(firsts, rank), _sums(seconds, rank)]),
            num_tokens=np.array([spectrum.whole.num_vectors for spectrum in spectra]),
            num_forwards=len(subject.rows),
            notes=tuple(_notes(inputs.leaders)),
        )


def peft_ranks(subject: Subject, rho: float = _RHO) -> dict[str, int]:
    """Return the ranks that PEFT's EVA gives to the subject's sites, 0 to those that it drops.

    Args:
        subject: what is scored; PEFT's `r` is the rank of its `lora`.
        rho: no site gets more than this times that rank.

    Raises:
        TrialError: as for `Eva.measure`.
    """
    rank = subject.lora.rank
    subject = replace(subject, max_rank=round(rank * rho))
    inputs = Inputs(subject)
    read_forward(subject, maps_of(subject), inputs.add)
    numbers = range(len(subject.sites))
    curves = [inputs.spectrum(number).whole.ratios() for number in numbers]
    ranks = redistributed(curves, inputs.leaders, budget=rank * len(curves))
    return dict(zip((site.path for site in subject.sites), ranks, strict=True))


def redistributed(curves: Sequence[Floats], leaders: Sequence[int], budget: int) -> list[int]:
    """Return how many of the largest shares are at each site: `_get_rank_distribution` of PEFT.

    Of sites that read the same input, whose shares are equal, the first has the highest rank.

    Args:
        curves: shares of each site, no more of them than the rank that a site can have.
        leaders: for each site the first one that reads the same.
        budget: ranks of all sites together.
    """
    # PEFT goes through the sites that lead first, and its order decides between equal shares.
    order = sorted(range(len(curves)), key=lambda site: (leaders[site] != site, leaders[site]))
    owners = np.concatenate([np.full(len(curves[site]), site) for site in order])
    shares = np.concatenate([curves[site] for site in order]).astype(np.float32)
    kept = np.argsort(-shares, kind="stable")[:budget]
    counts = Counter(owners[kept].tolist())
    for site in order:
        leader = leaders[site]
        if counts[leader] < counts[site]:
            counts[leader], counts[site] = counts[site], counts[leader]
    return [counts[site] for site in range(len(curves))]


class Spectrum:
    """Principal components of one input.

    Attributes:
        whole: of all rows.
        first: shares of the first half of the rows.
        second: of the second half.
    """

    def __init__(self, count: int) -> None:
        self.whole = PrincipalComponents(count)
        self.first = np.zeros(0)
        self.second = PrincipalComponents(count)

    def add(self, vectors: torch.Tensor, *, in_first_half: bool) -> None:
        """Take in one more chunk, shape (tokens, d_in); the first half of the rows comes first."""
        self.whole.add(vectors)
        if in_first_half:
            self.first = self.whole.ratios()
        else:
            self.second.add(vectors)


class Inputs:
    """The spectra of what a subject's sites read, each input once.

    Attributes:
        leaders: for each site the first one that reads the same; as in PEFT, what is equal to the
            last bit in the first pass is the same.
    """

    def __init__(self, subject: Subject) -> None:
        self.leaders = list(range(len(subject.sites)))
        self._subject = subject
        self._first_half = halves(len(subject.rows))[0]
        self._digests: dict[bytes, int] = {}
        self._spectra: dict[int, Spectrum] = {}
        self._seen: set[int] = set()

    def add(self, call: Call) -> None:
        """Take in one call of a map."""
        if call.site not in self._seen:
            self._seen.add(call.site)
            self._begin(call)
        if self.leaders[call.site] != call.site:
            return
        vectors = call.inputs[call.scored]
        if not bool(torch.isfinite(vectors).all()):
            raise TrialError(f"{self._path(call.site)}: reads what is no number: nothing to score")
        in_first_half = int(call.rows[0]) in self._first_half
        self._spectra[call.site].add(vectors, in_first_half=in_first_half)

    def spectrum(self, number: int) -> Spectrum:
        """Return what a site reads.

        Raises:
            TrialError: it reads nothing in a half of the rows.
        """
        spectrum = self._spectra.get(self.leaders[number])
        if spectrum is None or not (len(spectrum.first) and spectrum.second.num_vectors):
            raise TrialError(
                f"{self._path(number)}: no scored token of one half of the rows reaches it"
            )
        return spectrum

    def _begin(self, call: Call) -> None:
        """Find the leader of a site."""
        inputs = call.inputs
        digest = hashlib.sha256(inputs.view(torch.uint8).cpu().numpy().data).digest()
        leader = self._digests.setdefault(digest + bytes(str(inputs.shape), "ascii"), call.site)
        self.leaders[call.site] = leader
        if leader == call.site:
            self._spectra[leader] = Spectrum(min(self._subject.max_rank, inputs.shape[1]))

    def _path(self, number: int) -> str:
        return self._subject.sites[number].path


def _sums(curves: Sequence[Floats], rank: int) -> Floats:
    return np.array([curve[:rank].sum() for curve in curves])


def _notes(leaders: Sequence[int]) -> Iterator[str]:
    following = sum(leader != site for site, leader in enumerate(leaders))
    if following:
        yield (
            f"{following} of {len(leaders)} sites read what another one reads, as q, k and v do, "
            "and have its score"
        )
