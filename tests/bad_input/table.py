"""All cases of bad input, by the family that they belong to."""

from bad_input import (
    allocating,
    data,
    model,
    names_and_paths,
    other_verbs,
    placing,
    run_folder,
    study_file,
)
from bad_input.case import Case

FAMILIES: dict[str, list[Case]] = {
    "study file": study_file.CASES,
    "names and paths": names_and_paths.CASES,
    "data": data.CASES,
    "model": model.CASES,
    "run folder": run_folder.CASES,
    "rules and adapters": placing.CASES,
    "scores and budgets": allocating.CASES,
    "other verbs": other_verbs.CASES,
}


def cases() -> list[tuple[str, Case]]:
    """Return every case behind the name of its family."""
    return [(family, case) for family, listed in FAMILIES.items() for case in listed]
