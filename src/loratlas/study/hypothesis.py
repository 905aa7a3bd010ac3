"""What does a line such as ``at least 95% of full`` claim?

The claim is made before the run and stands in the study file; it is tested once. Nothing else of
the analysis is needed to read it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from loratlas.errors import StudyError, did_you_mean

_PERCENT = r"(?P<{name}>\d+(?:\.\d+)?) ?%"
_CLAIM = re.compile(
    rf"at least {_PERCENT.format(name='share')} of (?P<reference>.+?)"
    rf"(?: with at most {_PERCENT.format(name='parameters')} of its parameters)?"
)
_FORMS = (
    "'at least 95% of full' or 'at least 95% of full with at most 50% of its parameters', "
    "where full is a placement of the study"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hypothesis:
    """A placement keeps a share of another's gain over the untuned base.

    Attributes:
        reference: the placement it is held against.
        share: of that placement's gain, above 0 and at most 1.
        parameters: at most this share of its trainable parameters, None where nothing is said.
    """

    reference: str
    share: float
    parameters: float | None = None

    def __str__(self) -> str:
        claim = f"at least {self.share * 100:.12g}% of {self.reference}"
        if self.parameters is None:
            return claim
        return f"{claim} with at most {self.parameters * 100:.12g}% of its parameters"


def parse_hypothesis(text: str, placement: str, placements: Collection[str]) -> Hypothesis:
    """Read the claim of a study file about one placement.

    Args:
        text: the claim.
        placement: the placement that it is about.
        placements: every placement of the study.

    Raises:
        StudyError: the sentence has another form, a share is out of range, or the reference is
            unknown or the placement itself. The caller adds file and line.
    """
    found = _CLAIM.fullmatch(" ".join(text.split()))
    if found is None:
        raise StudyError(f"the hypothesis {text!r} cannot be read; write {_FORMS}")
    reference = found["reference"]
    if reference not in placements:
        raise StudyError(
            f"the hypothesis about {placement} names {reference}, which is no placement of the "
            f"study{did_you_mean(reference, placements)}; there are {', '.join(placements)}"
        )
    if reference == placement:
        raise StudyError(
            f"the hypothesis about {placement} holds it against itself; name another placement"
        )
    at_most = found["parameters"]
    return Hypothesis(
        reference=reference,
        share=_share(found["share"], "of the gain"),
        parameters=None if at_most is None else _share(at_most, "of the parameters"),
    )


def _share(percent: str, what: str) -> float:
    share = float(percent) / 100
    if not 0 < share <= 1:
        raise StudyError(
            f"the hypothesis asks for {percent}% {what}; allowed: above 0% and at most 100%"
        )
    return share
