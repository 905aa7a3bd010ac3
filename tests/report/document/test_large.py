"""Does a report of 200 trials take under 10 seconds and 10 MB?"""

import time

import pytest
from made_up import Shape, make_run

from loratlas.report.document.write import write_report
from loratlas.study.store import FILE_NAME, Store

LARGE = Shape(
    names=("full", *(f"placement_{at}" for at in range(9))),
    rates=(1e-4, 3e-4, 1e-3, 3e-3),
    seeds=5,
    rows=40,
    steps=300,
)


@pytest.mark.slow
def test_200_trials(tmp_path):
    run = make_run(tmp_path / "run", LARGE)
    store = Store(run / FILE_NAME)
    # Processor time, of all threads: what else the machine does is no part of it.
    began = time.process_time()
    found = write_report(run, store)
    assert time.process_time() - began < 10
    assert len(store.trials()) == 200
    store.close()
    sizes = [(run / "report" / name).stat().st_size for name in found["files"]]
    assert sum(sizes) < 10e6
    assert (run / "report" / "index.html").stat().st_size < 2e6
