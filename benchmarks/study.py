"""A seed study side by side: ``python benchmarks/study.py [--quick] [--json FILE] [--write]``.

The founding study's shape: three placements with two seeds of one base, in fp32 on two threads.
loratlas runs it as one study; the peer trains each trial in a process of its own.
"""

from dataclasses import replace

from materials import GPT2_MEDIUM
from side_by_side import Benchmark, main
from work import Work

WORK = Work(
    placements={"full": "all", "attention": "attention", "feed_forward": "feed_forward"},
    seeds=2,
)
BENCHMARK = Benchmark(
    name="study",
    title="A seed study: three placements, two seeds",
    work=WORK,
    quick=replace(WORK, shape={**GPT2_MEDIUM, "n_layer": 8}, train_rows=24, test_rows=4),
    least=1.3,
    aim=1.5,
)

if __name__ == "__main__":
    main(BENCHMARK, __doc__)
