"""How much is fuzzed, and what must hold of every example?

A test run takes the same few examples every time; `make bad-input` takes many fresh ones.
"""

import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from loratlas.errors import RequestError

_MANY = os.environ.get("LORATLAS_FUZZ_EXAMPLES")
_LONGEST = 20_000

FUZZED = settings(
    max_examples=int(_MANY or 80),
    derandomize=_MANY is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

WILD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**30), 65536, 1e308, 5e-324, float("nan"), float("inf")])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "\x00", "\x1b[31m", "\ud800", "../../x", "</script>", "a" * 300]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.sampled_from(["rule", "rank", "parts"]), inner)
    ),
    max_leaves=5,
)
"""Plain data of any kind."""


def works_or_says_why(call: Callable[[], object]) -> str | None:
    """Call; return the message of the request that was refused, None where it worked."""
    try:
        call()
    except RequestError as error:
        message = str(error)
        assert message.strip()
        assert len(message) < _LONGEST
        return message
    return None
