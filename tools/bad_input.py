"""Ask loratlas everything that a person may get wrong, and see whether it answers as it should.

python tools/bad_input.py                       each case as a process of its own; then fuzzing
python tools/bad_input.py --write FILE          and the table as Markdown
python tools/bad_input.py --only 'model: '      the cases whose name holds this

A case holds where the exit code is right, one message says what is wrong, and nothing is left over.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_REPOSITORY = Path(__file__).parents[1]
_TESTS = _REPOSITORY / "tests"
sys.path.insert(0, str(_TESTS))  # the cases are shared with the tests

from bad_input.case import Case  # noqa: E402
from bad_input.table import cases  # noqa: E402
from bad_input.verdict import Outcome, faults, listing, message  # noqa: E402
from bad_input.world import COMMAND, build, environment, finish, lay_out  # noqa: E402

_AT_A_TIME = 2
_LONGEST_SHOWN = 160
_FUZZ_EXAMPLES = 1000
_LIBRARY = ctypes.CDLL(None, use_errno=True)
_PR_CAPBSET_DROP = 24
# Reading and writing whatever the permissions say: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH.
_PRIVILEGES = (1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What a case came to."""

    name: str
    exit: str
    said: str
    faults: Sequence[str] = ()


def main() -> int:
    """Try every case and fuzz; return 1 where something did not hold."""
    asked = _arguments()
    chosen = [(family, case) for family, case in cases() if asked.only in f"{family}: {case.name}"]
    with tempfile.TemporaryDirectory(prefix="loratlas-bad-input-") as scratch:
        tried = list(_told(_try_all(chosen, Path(scratch))))
        if not asked.only:
            tried += _told(_fuzz(asked.examples))
    if asked.write is not None:
        asked.write.write_text(markdown(tried), encoding="utf-8")
    held = sum(not each.faults for each in tried)
    print(f"{len(tried)} tried, {held} held")
    return 0 if held == len(tried) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds this")
    parser.add_argument("--examples", type=int, default=_FUZZ_EXAMPLES, metavar="N",
                        help="examples of each property that is fuzzed")  # fmt: skip
    return parser.parse_args()


def _try_all(chosen: Sequence[tuple[str, Case]], scratch: Path) -> Iterator[Tried]:
    """Yield what each case came to, in their order; several are tried at a time."""
    world, around = scratch / "world", environment(scratch)
    os.environ.update(around)
    world.mkdir()
    build(world)
    if any(case.finished for _, case in chosen):
        finish(world, around)

    def attempt(numbered: tuple[int, tuple[str, Case]]) -> Tried:
        number, (family, case) = numbered
        outcome = ask(case, world, scratch / f"case-{number}", around)
        return Tried(
            name=f"{family}: {case.name}",
            exit="none" if outcome.code is None else str(outcome.code),
            said=message(outcome),
            faults=faults(case, outcome),
        )

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        yield from pool.map(attempt, enumerate(chosen))


def ask(case: Case, world: Path, folder: Path, around: dict[str, str]) -> Outcome:
    """Lay a case out in a new folder, and ask there."""
    lay_out(world, folder, case)
    before = listing(folder)  # not beside: to read a file lets go of every lock on it here
    with case.beside(folder):
        try:
            done = subprocess.run(
                [*COMMAND, *case.asked],
                cwd=folder,
                env=around,
                capture_output=True,
                timeout=case.seconds,
                preexec_fn=_as_anybody if case.unprivileged else None,
            )
        except subprocess.TimeoutExpired:
            return Outcome(code=None, out="", err="", before=before, after=before)
    return Outcome(
        code=done.returncode,
        out=done.stdout.decode(errors="replace"),
        err=done.stderr.decode(errors="replace"),
        before=before,
        after=listing(folder),
    )


def _as_anybody() -> None:
    """Give up the superuser's leave to read and write everything, for what is started next."""
    if os.geteuid() != 0:
        return
    for privilege in _PRIVILEGES:
        if _LIBRARY.prctl(_PR_CAPBSET_DROP, privilege, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "a privilege cannot be given up")


def _fuzz(examples: int) -> Iterator[Tried]:
    """Yield what each fuzzed property came to, with fresh examples."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", str(_TESTS / "bad_input"),
         "-k", "fuzz"],
        cwd=_REPOSITORY,
        env={**os.environ, "LORATLAS_FUZZ_EXAMPLES": str(examples)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    found = [line.split(" ", 1) for line in done.stdout.splitlines()]
    results = [each for each in found if each[0] in ("PASSED", "FAILED", "ERROR")]
    if not results:
        yield Tried(
            name="fuzzing", exit=str(done.returncode), said="", faults=[done.stdout[-2000:]]
        )
    for result, test in results:
        name = test.partition(" - ")[0].rpartition("::")[2].removeprefix("test_")
        told = [] if result == "PASSED" else [done.stdout[-4000:]]
        said = f"{examples} examples: each works or is one message"
        yield Tried(name=f"fuzzing: {name.replace('_', ' ')}", exit="", said=said, faults=told)


def _told(tried: Iterable[Tried]) -> Iterator[Tried]:
    """Print what was tried, one line each."""
    for each in tried:
        print(f"{each.name} · {each.exit} · {_short(each.said)}", flush=True)
        for fault in each.faults:
            print(f"    DOES NOT HOLD: {fault}", flush=True)
        yield each


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def markdown(tried: Sequence[Tried]) -> str:
    """Return the table of what was tried, as a page."""
    held = sum(not each.faults for each in tried)
    lines = [
        "# Bad input",
        "",
        "What `make bad-input` asked, and what a person was told. Written by "
        "`python tools/bad_input.py --write`.",
        "",
        f"**{len(tried)} tried, {held} held.**",
        "",
        "| what is wrong | exit | what is said |",
        "|---|---|---|",
    ]
    lines += [
        f"| {_cell(each.name)} | {each.exit} | {_code(_short(each.said))} |" for each in tried
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|').replace('`', chr(39))}`" if text else ""


if __name__ == "__main__":
    sys.exit(main())
