"""The two engines of a run, and ways to disturb them: what a run promises holds for both."""

import re
from collections.abc import Callable

import pytest

from loratlas.study import pack_runner, training, trial_runner
from loratlas.study.options import RunOptions


class Engine:
    """One of the two engines, and ways to disturb it."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.key = "auto" if name == "packed" else "reference"
        self.options = RunOptions(trials_per_pack=2)
        self._patch = monkeypatch

    def disturb(self, disturbance: Callable[[int, float], None]) -> None:
        """Call this with seed and rate before a trial is trained, or, in a pack, saved."""

        def fit(*arguments, seed, learning_rate, **more):
            disturbance(seed, learning_rate)
            return real_fit(*arguments, seed=seed, learning_rate=learning_rate, **more)

        def save_slot(slot, folder, base):
            disturbance(slot.seed, float(re.search(r"-lr(.+)-seed", folder.name)[1]))
            real_save(slot, folder, base)

        real_fit, real_save = trial_runner.fit, pack_runner.save_slot
        self._patch.setattr(trial_runner, "fit", fit)
        self._patch.setattr(pack_runner, "save_slot", save_slot)

    def interrupt(self, is_time: Callable[[int], bool]) -> None:
        """Press Ctrl-C at the first trial whose seed says that it is time."""

        def run_trial(bench, spec, *arguments, **more):
            if is_time(spec.seed):
                raise KeyboardInterrupt
            return real_trial(bench, spec, *arguments, **more)

        def run_pack(bench, packed, prefix, pack, trials, **more):
            if any(is_time(trial.spec.seed) for trial in trials):
                raise KeyboardInterrupt
            return real_pack(bench, packed, prefix, pack, trials, **more)

        real_trial, real_pack = training.run_trial, training.run_pack
        self._patch.setattr(training, "run_trial", run_trial)
        self._patch.setattr(training, "run_pack", run_pack)

    def let_be(self) -> None:
        """Take every disturbance away."""
        self._patch.undo()
