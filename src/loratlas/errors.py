"""Which errors loratlas raises, and what each of them means.

::

    LoratlasError
    ├── RequestError                     the request was wrong; exit code 2
    │   ├── RuleError (ValueError)       a sentence of the placement language cannot be read
    │   ├── PlacementError (ValueError)  a rule does not fit this model
    │   ├── StudyError (ValueError)      a study file is wrong; names file and line
    │   ├── ModelError (ValueError)      a model cannot be found or read
    │   ├── DataError (ValueError)       data cannot be found or read
    │   ├── RunFolderError (ValueError)  a run folder cannot be used for this
    │   ├── ExportError (ValueError)     a trial cannot be exported so, or is none that can be
    │   └── NotYetError (NotImplementedError)   understood, but not served by this version
    └── WorkError                        the work failed; exit code 1
        ├── VerificationError (RuntimeError)    what was built is not what was planned
        ├── TrialError (RuntimeError)    a trial failed or diverged
        └── StoreError (RuntimeError)    the store of a run cannot be read or written
            └── StaleClaimError          a trial was begun again by somebody else meanwhile

Each error also is the standard library's type for its case, so that a caller who
does not know loratlas can still catch it.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LoratlasError(Exception):
    """The root of every error that loratlas raises on purpose."""

    exit_code = 1


class RequestError(LoratlasError):
    """The request was wrong: nothing was started, nothing was written."""

    exit_code = 2


class RuleError(RequestError, ValueError):
    """A sentence of the placement language cannot be read."""


class PlacementError(RequestError, ValueError):
    """A rule does not fit the model it is resolved against."""


class StudyError(RequestError, ValueError):
    """A study file is wrong; the message names file and line."""


class ModelError(RequestError, ValueError):
    """A model or its configuration cannot be found or read."""


class DataError(RequestError, ValueError):
    """Data cannot be found or read, or hold no row that can be used."""


class RunFolderError(RequestError, ValueError):
    """A run folder is missing, unreadable, or holds another study."""


class ExportError(RequestError, ValueError):
    """A trial cannot be exported, or its placement cannot be expressed for a target."""


class NotYetError(RequestError, NotImplementedError):
    """The request is understood but not served by this version."""


class WorkError(LoratlasError):
    """The request was right and the work failed."""


class VerificationError(WorkError, RuntimeError):
    """What was built differs from what was planned."""


class TrialError(WorkError, RuntimeError):
    """A trial failed or diverged."""


class StoreError(WorkError, RuntimeError):
    """The store of a run cannot be read or written."""


class StaleClaimError(StoreError):
    """What came out of a trial arrives late: somebody else has begun it again."""


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` for the nearest allowed name, or an empty string."""
    near = get_close_matches(given, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""
