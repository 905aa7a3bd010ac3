"""What is each group of sites worth, when it is tried?

*add_one_in* adapts each group alone, beside the untuned base; *leave_one_out* adapts all groups but
one, beside all of them. The two differ where groups can stand in for each other. They are ordinary
studies, run into a run folder, and every other scorer is judged by what they find.

A value is a difference of validation losses, in nats per scored token and averaged over seeds: what
the group alone takes from the base's loss, or what its absence adds to that of all. It is neither
divided by parameters nor by sites, and every site of a group has it. Ranks are the study's at every
site unless parameters are to be matched.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from loratlas.allocate.table import ScoreTable
from loratlas.anatomy.sites import Anatomy
from loratlas.errors import StudyError
from loratlas.study.brute_force_values import EVERYTHING, Trials, read_table
from loratlas.study.folder import open_run
from loratlas.study.groups import group_sites, rule_of
from loratlas.study.options import RunOptions
from loratlas.study.progress import Listener
from loratlas.study.request import model_for, read_anatomy, read_data
from loratlas.study.run import run_study
from loratlas.study.scoring import candidates
from loratlas.study.scoring_options import BruteForceOptions
from loratlas.study.spec import PlacementSpec, StudySpec

_WITHOUT_PROBES = RunOptions(probe=False)


def brute_force(
    study: StudySpec,
    folder: Path,
    options: BruteForceOptions,
    listener: Listener,
    run_options: RunOptions = _WITHOUT_PROBES,
) -> ScoreTable:
    """Try every group, or what is missing of that, and return what each is worth.

    Args:
        study: the study whose model, rows, training and seeds are taken.
        folder: the run folder; a run that was broken off there goes on.
        options: how groups are tried.
        listener: hears of it.
        run_options: as for any run.

    Raises:
        RequestError: the study does not fit, has no validation rows, or has one group.
        TrialError: no trial of some group ended.
    """
    data = read_data(study)
    if not data.validation.rows:
        raise StudyError(
            f"{study.path}: data.validation: no validation rows; {options.method} is read from them"
        )
    anatomy = read_anatomy(model_for(study, data))
    trials = derive(study, anatomy, options)
    with _written(trials.study) as written:
        run_study(written, folder, listener, run_options)
    with closing(open_run(folder)) as store:
        return read_table(store, trials, anatomy)


def derive(study: StudySpec, anatomy: Anatomy, options: BruteForceOptions) -> Trials:
    """Return the study that tries every group of another's sites.

    Raises:
        RequestError: the sites do not fit the model, or fall into one group.
    """
    sites = candidates(study.root, anatomy, options.sites)
    groups = group_sites(sites, anatomy, options.by)
    if len(groups) < 2:
        raise StudyError(
            f"{study.path}: {options.method} compares groups, and by {options.by} the sites "
            f"{options.sites} are one: {groups[0].name}"
        )
    rules = {group.name: rule_of(group.sites, anatomy) for group in groups}
    baseline = max(groups, key=lambda group: group.parameters_per_rank).name
    shown = tuple(rules)
    if options.method == "leave_one_out":
        rules = {EVERYTHING: rule_of(sites, anatomy, options.sites)}
        for group in groups:
            rest = [site for site in sites if site not in group.sites]
            rules[f"without {group.name}"] = rule_of(rest, anatomy, options.sites)
        baseline, shown = EVERYTHING, tuple(rules)[1:]
    rates = study.training.learning_rate
    return Trials(
        study=replace(
            study,
            name=f"{study.name[:48]}-{options.method}",
            placements={n: PlacementSpec(name=n, rule=rule) for n, rule in rules.items()},
            baseline=baseline,
            match=options.match,
            training=replace(study.training, learning_rate=options.learning_rate or rates),
            seeds=options.seeds or study.seeds,
            sweep_seeds=None if options.seeds else study.sweep_seeds,
            measures=(),
            hypothesis={},
            track=(),
        ),
        groups=groups,
        placements=shown,
        options=options,
    )


@contextmanager
def _written(study: StudySpec) -> Iterator[StudySpec]:
    """Write a derived study as a file for a while: a run keeps a copy of what it was made from."""
    yaml = YAML()
    document: dict[str, Any] = yaml.load(study.path.read_text(encoding="utf-8"))
    for key in ("measures", "hypothesis", "track"):
        document.pop(key, None)
    document["name"] = study.name
    document["placements"] = {each.name: each.rule for each in study.placements.values()}
    document |= {"baseline": study.baseline, "match": study.match, "seeds": list(study.seeds)}
    document.setdefault("training", {})["learning_rate"] = list(study.training.learning_rate)
    if study.sweep_seeds is None:
        document.pop("sweep_seeds", None)
    with TemporaryDirectory(prefix="loratlas-") as folder:
        file = Path(folder) / study.path.name
        with file.open("w", encoding="utf-8") as stream:
            yaml.dump(document, stream)
        yield replace(study, path=file)
