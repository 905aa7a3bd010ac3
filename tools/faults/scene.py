"""One fault on its stage: what is done, what the person at the terminal sees, what must hold."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.command import Command, MissedError
from faults.numbers import differences, has_begun, numbers
from faults.world import RUN, World, run_arguments

_MOST_TOLD = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A fault that can be staged.

    Attributes:
        name: what happens, in words.
        stage: lets it happen, and looks at what comes of it.
        study: which one is disturbed.
        needs_mounts: whether it takes file systems of its own.
    """

    name: str
    stage: "Callable[[Scene], None]"
    study: str = "small"
    needs_mounts: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a fault.

    Attributes:
        name: what happened.
        said: what the person at the terminal saw.
        checked: what was looked at, in words.
        wrong: what of it did not hold.
    """

    name: str
    said: str
    checked: Sequence[str] = ()
    wrong: Sequence[str] = ()


@dataclass(kw_only=True)
class Scene:
    """What a fault is staged with: a folder of its own, commands, and a notebook.

    Attributes:
        world: all that is staged.
        folder: of this fault, with its study.
        study: its name.
        out: the run folder; a fault may choose another.
    """

    world: World
    folder: Path
    study: str
    out: Path = field(default_factory=Path)
    _said: str = ""
    _checked: list[str] = field(default_factory=list)
    _wrong: list[str] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.out = self.folder / RUN

    def start(
        self,
        *options: str,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> Command:
        """Start `loratlas run` on the study of this scene."""
        return self.ask(
            *run_arguments(*options, out=self._named), environment=environment, prepare=prepare
        )

    def ask(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> Command:
        """Start any command of loratlas."""
        return self._open.enter_context(
            Command(
                arguments,
                folder=self.folder,
                environment=self.world.environment if environment is None else environment,
                prepare=prepare,
            )
        )

    def training(self, *options: str, step: int = 3, **how: Any) -> Command:
        """Start the run, and wait until its first pack has come to a step."""
        command = self.start(*options, **how)
        command.until(lambda: self.newest_step() >= step, f"step {step}")
        return command

    def under_way(self, *options: str) -> Command:
        """Start the run, and wait until its first trials have been begun."""
        command = self.start(*options)
        command.until(lambda: has_begun(self.out), "a trial that is under way")
        return command

    def newest_step(self) -> int:
        """Return the step of the newest checkpoint, 0 where there is none."""
        return max((int(path.name[5:]) for path in self.checkpoints()), default=0)

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints of what is under way, the oldest first."""
        return sorted((self.out / "checkpoints").glob("pack-*/step-*"))

    def told(self, line: str) -> None:
        """Note what the person at the terminal saw."""
        self._said = line.replace(f"{self.folder}/", "")

    def check(self, what: str, holds: bool, but: str = "") -> None:
        """Note something that must hold, and whether it does."""
        self._checked.append(what)
        if not holds:
            self._wrong.append(f"{what}: {but}" if but else f"not so: {what}")

    def check_ends(self, command: Command, code: int, says: str = "") -> None:
        """Check how a command ends, and note what it says at last."""
        found = command.wait()
        self.told(command.message)
        self.check(f"exit {code}", found == code, f"exit {found}: {command.message}")
        if says:
            self.check(f"says “{says}”", says in command.message, command.message)
        self.check_quiet(command)

    def check_quiet(self, command: Command) -> None:
        """Check that a command printed no traceback."""
        trace = [line for line in command.said if "Traceback" in line or "Logging error" in line]
        self.check("no traceback", not trace, "\n".join(command.said[-30:]))

    def check_numbers(self, tolerance: float = 0.0) -> None:
        """Check every number against the run that nobody disturbed."""
        wanted = self.world.undisturbed(self.study).numbers
        wrong = differences(wanted, numbers(self.out), tolerance)
        near = f" within {tolerance:g}" if tolerance else ""
        self.check(
            f"all {len(wanted):,} numbers equal{near}",
            not wrong,
            f"{len(wrong)} differ: {'; '.join(wrong[:_MOST_TOLD])}",
        )

    def check_goes_on(self, *options: str) -> None:
        """Check that the same command goes on, and comes to the same numbers."""
        command = self.start(*options)
        code = command.wait()
        self.check("the same command goes on", code == 0, f"exit {code}: {command.message}")
        self.check_numbers()

    def play(self, fault: Fault) -> Outcome:
        """Stage a fault, and return what came of it."""
        with self._open:
            try:
                fault.stage(self)
            except MissedError as error:
                self._wrong.append(str(error))
            except Exception as error:  # a fault of the stage is no reason to end the others
                self._wrong.append(f"{type(error).__name__}: {error}")
        return Outcome(name=fault.name, said=self._said, checked=self._checked, wrong=self._wrong)

    @property
    def _named(self) -> str:
        return str(
            self.out.relative_to(self.folder) if self.out.is_relative_to(self.folder) else self.out
        )


def play(fault: Fault, world: World) -> Outcome:
    """Stage a fault in a folder of its own."""
    words = "".join(letter if letter.isalnum() else "-" for letter in fault.name.lower())
    folder = world.folder(words[:40])
    world.lay_out(fault.study, folder)
    return Scene(world=world, folder=folder, study=fault.study).play(fault)


def listing(folder: Path) -> dict[str, str]:
    """Return what a folder holds: every file with its SHA-256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
