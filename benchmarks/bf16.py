"""The seed study with a bf16 base: ``python benchmarks/bf16.py [--quick] [--json FILE] [--write]``.

The work of ``study.py``; both sides hold the frozen base in bf16 and the adapters in fp32.
"""

from dataclasses import replace

from side_by_side import Benchmark, main

from study import BENCHMARK as STUDY

BENCHMARK = Benchmark(
    name="bf16",
    title="A seed study on a base in bf16",
    work=replace(STUDY.work, dtype="bf16"),
    quick=replace(STUDY.quick, dtype="bf16"),
    least=1.5,
)

if __name__ == "__main__":
    main(BENCHMARK, __doc__)
