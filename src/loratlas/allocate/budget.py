"""How much may a placement spend, and what does one unit of rank take of it at a site?"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from loratlas.anatomy.sites import Site
from loratlas.errors import PlacementError, did_you_mean

Unit = Literal["parameters", "ranks", "bytes"]
UNITS: tuple[str, ...] = get_args(Unit)

# Adapters are trained and saved in fp32, whatever the type of the base is.
BYTES_PER_PARAMETER = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The most that a placement may take.

    Attributes:
        amount: how much.
        unit: trainable ``parameters``; ``ranks``, summed over sites; or ``bytes`` of the adapter's
            weights, 4 for each parameter.
    """

    amount: int
    unit: Unit = "parameters"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise PlacementError(
                f"unknown unit {self.unit!r} of a budget{did_you_mean(str(self.unit), UNITS)}; "
                f"it is one of {', '.join(UNITS)}"
            )
        if isinstance(self.amount, bool) or not isinstance(self.amount, int) or self.amount < 1:
            raise PlacementError(
                f"a budget is a positive whole number of {self.unit}, not {self.amount!r}"
            )

    def per_rank(self, site: Site) -> int:
        """Return what one unit of rank takes at a site, in the unit of the budget."""
        if self.unit == "ranks":
            return 1
        parameters = site.parameters_per_rank
        return parameters * BYTES_PER_PARAMETER if self.unit == "bytes" else parameters

    def __str__(self) -> str:
        return f"{self.amount:,} {self.unit}"

    def to_json(self) -> dict[str, Any]:
        """Return the budget as plain data."""
        return asdict(self)
