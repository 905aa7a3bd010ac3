"""The table as Markdown: what happened, what a person saw, what was looked at, whether it held."""

from collections import Counter
from collections.abc import Sequence

from faults.kills import KilledRun
from faults.scene import Outcome
from faults.table import NOT_STAGED

_LONGEST = 220


def page(runs: Sequence[KilledRun], outcomes: Sequence[Outcome], *, seed: str) -> str:
    """Return the page of all that was tried."""
    tried, held = counts(runs, outcomes)
    return "\n".join(
        [
            "# Faults",
            "",
            "What `make faults` did to runs, and what a person at the terminal saw. Written by "
            "`python tools/faults --write`.",
            "",
            f"**{tried} tried, {held} held.**",
            "",
            *_kills(runs, seed),
            *_faults(outcomes),
            *_not_staged(),
        ]
    )


def counts(runs: Sequence[KilledRun], outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """Return how many were tried, kills and faults, and how many held."""
    tried = sum(max(len(run.kills), bool(run.wrong)) for run in runs) + len(outcomes)
    held = sum(run.num_held for run in runs) + sum(not each.wrong for each in outcomes)
    return tried, held


def summary(runs: Sequence[KilledRun]) -> str:
    """Return in one sentence what the kills came to."""
    kills = [kill for run in runs for kill in run.kills]
    num_compared = sum(run.num_compared for run in runs)
    longest = max((kill.orphan_seconds or 0.0 for kill in kills), default=0.0)
    return (
        f"{len(kills)} kills ({_of(kills, 'command')} of the command, {_of(kills, 'worker')} of "
        f"its worker) in {len(runs)} runs; {num_compared:,} numbers compared; a worker outlived "
        f"its command by at most {longest:.1f} s"
    )


def _of(kills: Sequence[object], victim: str) -> int:
    return sum(getattr(kill, "victim", "") == victim for kill in kills)


def _kills(runs: Sequence[KilledRun], seed: str) -> list[str]:
    kills = [kill for run in runs for kill in run.kills]
    if not kills:
        return []
    fell = Counter((kill.fell, kill.victim) for kill in kills)
    places = sorted({place for place, _ in fell}, key=lambda place: -_total(fell, place))
    return [
        "## kill -9",
        "",
        f"{summary(runs)}. Seed {seed}. After each kill the same command was given again, until "
        "it ended; then every loss, every score of a row, every adapter (bit for bit), scores, "
        "trajectories, packs and chosen rates were held against a run that nobody disturbed. "
        "Attempts, seconds and memory may differ, and do.",
        "",
        "| where it fell | of the command | of its worker |",
        "|---|---|---|",
        *(f"| {place} | {fell[place, 'command']} | {fell[place, 'worker']} |" for place in places),
        "",
        "A person whose command is killed sees what the shell says, `Killed`. A person whose "
        "worker is killed sees one line, and need not do anything:",
        "",
        "```",
        *sorted({line for run in runs for line in run.said}),
        "```",
        "",
        *(f"- NOT HELD: {wrong}" for run in runs for wrong in run.wrong),
    ]


def _total(fell: Counter[tuple[str, str]], place: str) -> int:
    return fell[place, "command"] + fell[place, "worker"]


def _faults(outcomes: Sequence[Outcome]) -> list[str]:
    held = sum(not each.wrong for each in outcomes)
    return [
        "## Each other fault",
        "",
        f"{len(outcomes)} tried, {held} held. A fault holds where all that was looked at is so.",
        "",
        "| what happens | what a person sees | what was looked at | held |",
        "|---|---|---|---|",
        *(
            f"| {each.name} | {_code(each.said)} | {_cell('; '.join(each.checked))} "
            f"| {'yes' if not each.wrong else 'NO: ' + _cell('; '.join(each.wrong))} |"
            for each in outcomes
        ),
        "",
    ]


def _not_staged() -> list[str]:
    return [
        "## Not staged",
        "",
        "| what | why |",
        "|---|---|",
        *(f"| {what} | {_cell(why)} |" for what, why in NOT_STAGED),
        "",
    ]


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return flat if len(flat) <= 2 * _LONGEST else f"{flat[: 2 * _LONGEST]}…"


def _code(text: str) -> str:
    if text.startswith("("):
        return _cell(text)
    flat = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return f"`{flat if len(flat) <= _LONGEST else flat[:_LONGEST] + '…'}`" if flat else ""
