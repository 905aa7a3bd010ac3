"""Layer ranges side by side: ``python benchmarks/layer_ranges.py [--quick] [--json FILE]``.

The last 1, 3, 6 and 12 of 24 blocks at two learning rates for three epochs, in fp32 on two
threads. Below the lowest adapted block nothing changes between epochs and trials, which
loratlas computes once; the peer computes it in every step.
"""

from dataclasses import replace

from materials import GPT2_MEDIUM
from side_by_side import Benchmark, main
from work import Work

WORK = Work(
    placements={f"last_{n}": f"all @ last({n})" for n in (1, 3, 6, 12)},
    learning_rates=(1e-4, 4e-4),
    epochs=3,
)
BENCHMARK = Benchmark(
    name="layer_ranges",
    title="Layer ranges: the last 1, 3, 6 and 12 blocks, two rates, three epochs",
    work=WORK,
    quick=replace(
        WORK,
        shape={**GPT2_MEDIUM, "n_layer": 12},
        placements={f"last_{n}": f"all @ last({n})" for n in (1, 6)},
        train_rows=24,
        test_rows=4,
    ),
    least=2.0,
    aim=2.5,
)

if __name__ == "__main__":
    main(BENCHMARK, __doc__)
