"""What does `kill -9` cost, at any moment, of the command or of the process that works?

A study is carried out; it is killed at a moment that was drawn, and carried on by the same command,
until it has ended. Then all of its numbers are compared, and another one begins.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from faults.command import Command, MissedError, seconds_until_gone
from faults.moments import PREFIX_FILE, WRITES, draw, left_behind
from faults.numbers import differences, numbers
from faults.world import RUN, World, run_arguments

_MOST_DEATHS = 2
"""Deaths of one command's workers: a third one would give its trials up, which is staged apart."""
_LONGEST_ORPHAN_S = 5.0
_MOST_TOLD = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way to carry out a study.

    Attributes:
        study: its name.
        options: of the command.
        writes: what it writes that a kill may be aimed at.
    """

    study: str
    options: Sequence[str] = ()
    writes: Sequence[str] = WRITES


_WITH_FILE = ("--prefix-memory", "0", "--prefix-file", "64MB")

WAYS = (
    Way(study="mixed", options=_WITH_FILE),
    Way(study="reference", writes=tuple(each for each in WRITES if each != PREFIX_FILE)),
    Way(study="mixed", options=("--checkpoint", "0.2", *_WITH_FILE)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One kill.

    Attributes:
        victim: the command, or its worker.
        fell: where it fell.
        orphan_seconds: how long the worker outlived its command; None where it did not end.
    """

    victim: str
    fell: str
    orphan_seconds: float | None = 0.0

    @property
    def held(self) -> bool:
        """Whether nothing outlived it for long."""
        return self.orphan_seconds is not None and self.orphan_seconds <= _LONGEST_ORPHAN_S


@dataclass(kw_only=True)
class KilledRun:
    """A run that was killed until it was whole.

    Attributes:
        study: its study.
        kills: in order.
        commands: how often the command was given.
        num_compared: numbers that were compared.
        wrong: what did not hold in the end.
        said: lines that a person saw of workers that ended.
    """

    study: str
    kills: list[Kill] = field(default_factory=list)
    commands: int = 0
    num_compared: int = 0
    wrong: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def num_held(self) -> int:
        """Kills that cost nothing."""
        return 0 if self.wrong else sum(kill.held for kill in self.kills)


def killed_runs(
    world: World, seed: str, num_kills: int, ways: Sequence[Way] = WAYS
) -> Iterator[KilledRun]:
    """Yield runs until so many kills were made; a seed always draws the same moments."""
    chance, left, number = Random(seed), num_kills, 0
    while left > 0:
        way = ways[number % len(ways)]
        run = _Torment(world, way, chance, left).to_the_end(f"killed-{seed}-{number}")
        yield run
        if run.wrong and not run.kills:  # it cannot be carried out at all
            return
        left -= len(run.kills)
        number += 1


class _Torment:
    """Kills one run until it is whole, or until there are no kills left."""

    def __init__(self, world: World, way: Way, chance: Random, most: int) -> None:
        self._world, self._way, self._chance, self._most = world, way, chance, most
        self._undisturbed = world.undisturbed(way.study)
        self._found = KilledRun(study=way.study)

    def to_the_end(self, name: str) -> KilledRun:
        """Carry the study out."""
        folder = self._world.folder(name)
        self._world.lay_out(self._way.study, folder)
        try:
            while not self._is_whole(folder):
                if self._found.wrong:
                    return self._found
        except MissedError as error:
            self._found.wrong.append(str(error))
            return self._found
        wanted = self._undisturbed.numbers
        wrong = differences(wanted, numbers(folder / RUN))
        self._found.num_compared = len(wanted)
        self._found.wrong += [f"{len(wrong)} numbers differ: {each}" for each in wrong[:_MOST_TOLD]]
        return self._found

    def _is_whole(self, folder: Path) -> bool:
        """Give the command once, kill what is drawn, and return whether it came to its end."""
        self._found.commands += 1
        with Command(
            run_arguments(*self._way.options), folder=folder, environment=self._world.environment
        ) as command:
            was_killed = self._tormented(command, folder / RUN)
            code = command.wait()
        said = [line for line in command.said if "was ended" in line]
        self._found.said += said
        if was_killed:
            return False
        if code:
            self._found.wrong.append(f"exit {code}: {' / '.join(command.said[-5:])}")
        return code == 0

    def _tormented(self, command: Command, run: Path) -> bool:
        """Kill workers of a command, or the command itself; return whether it was the latter."""
        deaths = 0
        while len(self._found.kills) < self._most:
            moment = draw(self._chance, self._undisturbed.seconds, self._way.writes)
            of_worker = self._chance.random() < 0.5 and deaths < _MOST_DEATHS
            if not moment.wait(command, run):
                return False
            worker = command.worker()
            if of_worker and worker is not None:
                self._kill_worker(worker, run)
                deaths += 1
            else:
                self._kill_command(command, run)
                return True
        return False

    def _kill_worker(self, worker: psutil.Process, run: Path) -> None:
        with suppress(psutil.NoSuchProcess):
            worker.send_signal(signal.SIGKILL)
        self._found.kills.append(Kill(victim="worker", fell=left_behind(run)))

    def _kill_command(self, command: Command, run: Path) -> None:
        family = command.family()
        command.send(signal.SIGKILL)
        command.wait()
        seconds = seconds_until_gone(family)
        self._found.kills.append(
            Kill(victim="command", fell=left_behind(run), orphan_seconds=seconds)
        )
