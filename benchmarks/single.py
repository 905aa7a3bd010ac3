"""One trial side by side: ``python benchmarks/single.py [--quick] [--json FILE] [--write]``.

Every site of every block for three epochs, in fp32 on two threads: what is left of the gain
where there is only one trial.
"""

from dataclasses import replace

from materials import GPT2_MEDIUM
from side_by_side import Benchmark, main
from work import Work

WORK = Work(placements={"full": "all"}, epochs=3)
BENCHMARK = Benchmark(
    name="single",
    title="One trial",
    work=WORK,
    quick=replace(WORK, shape={**GPT2_MEDIUM, "n_layer": 12}, test_rows=4),
    least=1.15,
)

if __name__ == "__main__":
    main(BENCHMARK, __doc__)
