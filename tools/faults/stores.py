"""What others do to a run's store: a second controller, a late worker, a lock."""

import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from faults.scene import Fault, Scene, listing

_SHORT_S = 5.0


def _two_controllers(scene: Scene) -> None:
    first = scene.training()
    worker = first.the_worker()
    worker.send_signal(signal.SIGSTOP)  # so that it still holds the folder when the other comes
    second = scene.start()
    scene.check_ends(second, 2, "another `loratlas run` is working here")
    worker.send_signal(signal.SIGCONT)
    scene.check("the first one goes on", first.wait() == 0, first.message)
    scene.check_numbers()


def _late_worker(scene: Scene) -> None:
    """Two owners claim the same trial; the one that was given up brings its result last."""
    from loratlas.errors import StaleClaimError
    from loratlas.study.records import TrialRecord
    from loratlas.study.store import FILE_NAME, Store

    def record(attempts: int, loss: float) -> TrialRecord:
        return TrialRecord(
            digest="trial",
            placement_digest="p",
            learning_rate=1e-3,
            seed=0,
            status="done",
            attempts=attempts,
            engine="packed",
            losses=[loss],
        )

    with closing(Store(scene.folder / FILE_NAME, writable=True)) as store:
        late = store.claim(["trial"], "first")
        current = store.claim(["trial"], "second")
        store.add_trials([(record(2, 2.0), {}, {})], current)
        before = store.trials()
        try:
            store.add_trials([(record(1, 1.0), {}, {})], late)
        except StaleClaimError as error:
            scene.told(str(error))
        else:
            scene.check("what comes late is refused", holds=False)
        scene.check("the record that took its place is as it was", store.trials() == before)
        scene.check("the attempts are counted", store.trials()["trial"].attempts == 2)


def _locked_for_a_while(scene: Scene) -> None:
    command = scene.training(step=50)  # the end of the pack, and so its record, is near
    with _exclusive(scene.out):
        time.sleep(_SHORT_S)
        scene.check("it waits", not command.has_ended)
    scene.check_ends(command, 0)
    scene.told("(nothing: the run waits)")
    scene.check_numbers()


def _locked_for_long(scene: Scene) -> None:
    command = scene.training(step=50)
    with _exclusive(scene.out):
        scene.check_ends(command, 1, "database is locked")
    scene.check_goes_on()


def _looked_at(scene: Scene) -> None:
    """Somebody asks for the results again and again while the run writes."""
    command = scene.training()
    codes = []
    while not command.has_ended:
        look = scene.ask("status", str(scene.out))
        codes.append(look.wait())
    scene.check("every `loratlas status` is answered", set(codes) == {0}, str(codes))
    scene.check_ends(command, 0)
    scene.told(look.printed.splitlines()[0] if codes else "")
    scene.check_numbers()


def _done_already(scene: Scene) -> None:
    """The same command once more when all is done: nothing is trained again."""
    first = scene.start()
    first.wait()
    adapters = listing(scene.out / "adapters")
    second = scene.start()
    scene.check_ends(second, 0)
    scene.told("(the table of results)")
    scene.check("adapters stay as they were", listing(scene.out / "adapters") == adapters)
    scene.check_numbers()


@contextmanager
def _exclusive(run: Path) -> Iterator[None]:
    """Hold the store as another process would that writes and never ends."""
    with closing(sqlite3.connect(run / "run.sqlite", timeout=20, isolation_level=None)) as store:
        store.execute("BEGIN EXCLUSIVE")
        yield
        store.execute("ROLLBACK")


FAULTS = (
    Fault(name="two controllers on one run folder", stage=_two_controllers),
    Fault(name="a worker reports after its trial was given to another", stage=_late_worker),
    Fault(name="the store is locked for some seconds", stage=_locked_for_a_while),
    Fault(name="the store is locked for more than half a minute", stage=_locked_for_long),
    Fault(name="others read the run while it writes", stage=_looked_at),
    Fault(name="the command is given once more when all is done", stage=_done_already),
)
