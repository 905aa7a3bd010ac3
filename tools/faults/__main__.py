"""Do to loratlas what machines and people do to a run, and see whether anything is lost.

python tools/faults                     100 kills, and each other fault
python tools/faults --write FILE        and the table as Markdown
python tools/faults --only 'disk|link'  faults whose name matches this; 'at drawn' for kills alone
python tools/faults --kills 10 --seed 7 fewer kills, at other moments

A kill holds where the run comes to the numbers of a run that nobody disturbed, bit for bit, and no
process is left over. A fault holds where all that it looks at is so.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# In the place of this folder, whose modules have names that others have, too.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.disks import OWN_MOUNTS, take_own_mounts
from faults.kills import WAYS, KilledRun, killed_runs
from faults.page import counts, page, summary
from faults.scene import Fault, Outcome, play
from faults.table import FAULTS
from faults.world import World

_PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_LONGEST_SHOWN = 160
_KILLS_OF_A_CHAIN = 20
_KILLS = "kill -9 at drawn moments"


def main() -> int:
    """Stage everything; return 1 where something did not hold."""
    asked = _arguments()
    take_own_mounts()
    # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    chosen = [fault for fault in FAULTS if re.search(asked.only, fault.name)]
    with tempfile.TemporaryDirectory(prefix="loratlas-faults-") as scratch:
        world = World(asked.keep or Path(scratch))
        runs, outcomes = _staged(world, chosen, asked)
    if asked.write is not None:
        asked.write.write_text(page(runs, outcomes, seed=asked.seed), encoding="utf-8")
    if runs:
        print(summary(runs))
    tried, held = counts(runs, outcomes)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    print(f"{tried} tried, {held} held")
    return 0 if held == tried else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="how many kills")
    parser.add_argument("--seed", default="0", help="of the moments at which a run is killed")
    parser.add_argument(
        "--at-once", type=int, default=2, metavar="N", help="how much is staged at a time"
    )
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="faults whose name matches this"
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        nargs="?",
        const=_PAGE,
        help="write the table as Markdown, to docs/faults.md if none is named",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="stage here, and leave it all")
    return parser.parse_args()


def _staged(
    world: World, chosen: Sequence[Fault], asked: argparse.Namespace
) -> tuple[list[KilledRun], list[Outcome]]:
    """Stage kills and faults, some at a time; print each as it ends."""
    num_kills = asked.kills if re.search(asked.only, _KILLS) else 0
    starts = range(0, num_kills, _KILLS_OF_A_CHAIN)
    with ThreadPoolExecutor(asked.at_once) as pool:
        kills = [
            pool.submit(
                _killed, world, asked.seed, number, min(_KILLS_OF_A_CHAIN, num_kills - first)
            )
            for number, first in enumerate(starts)
        ]
        faults = [pool.submit(_played, fault, world) for fault in chosen if _can_be_staged(fault)]
        return [run for each in kills for run in each.result()], [each.result() for each in faults]


def _can_be_staged(fault: Fault) -> bool:
    if fault.needs_mounts and OWN_MOUNTS not in os.environ:
        print(f"not staged: {fault.name}: this machine does not let anybody mount a file system")
        return False
    return True


def _killed(world: World, seed: str, number: int, num_kills: int) -> list[KilledRun]:
    """Make the kills of one chain; each begins with another way to carry out a study."""
    first = number % len(WAYS)
    ways, runs = (*WAYS[first:], *WAYS[:first]), []
    for run in killed_runs(world, f"{seed}.{number}", num_kills, ways):
        victims = ", ".join(f"{kill.victim} {kill.fell}" for kill in run.kills)
        _show(f"{len(run.kills)} kills of a run of {run.study}: {victims}", run.wrong)
        runs.append(run)
    return runs


def _played(fault: Fault, world: World) -> Outcome:
    outcome = play(fault, world)
    _show(f"{outcome.name} · {outcome.said}", outcome.wrong)
    return outcome


def _show(line: str, wrong: Sequence[str]) -> None:
    short = line if len(line) <= _LONGEST_SHOWN else f"{line[: _LONGEST_SHOWN - 1]}…"
    lines = [short, *(f"    DOES NOT HOLD: {each}" for each in wrong)]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
