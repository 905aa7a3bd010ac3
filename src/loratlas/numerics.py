"""Which sums does a matrix product take, whatever stands beside a row? No torch.

Intel's library, which torch uses on x86, divides a product by its number of rows: the bits of one
row then depend on how many others there are. Its strict mode fixes the order of sums; it is set
by an environment variable that is read once, before the first product. Measured: rows are equal bit
for bit for every shape and number of threads tried, at the same speed.
"""

import os

VARIABLE = "MKL_CBWR"
_STRICT = "AUTO,STRICT"


def fix_order_of_sums() -> None:
    """Ask for one order of sums; call this before torch is imported. A value that is set stays."""
    os.environ.setdefault(VARIABLE, _STRICT)
