"""How was all this come by: model, data, training, seeds, statistics, machine, versions?"""

from collections.abc import Iterator, Mapping
from typing import Any

from loratlas.report.document.facts import Facts
from loratlas.report.document.pieces import Section, Table, columns, text
from loratlas.report.document.words import counted

_MACHINE = ("platform", "processor", "num_cores", "num_threads", "device", "gpu")
_WORDS = {
    "num_cores": "cores", "num_threads": "threads", "gpu": "GPU", "python": "Python",
    "max_length": "longest row, tokens", "split_seed": "seed of the split",
    "mask_share": "share of tokens masked",
}  # fmt: skip


def methods(facts: Facts) -> Section:
    """Return what a reader needs to judge the figures, and to repeat them."""
    return Section(
        name="methods",
        title="Methods",
        words=tuple(_words(facts)),
        tables=tuple(_tables(facts)),
        source=facts.study_text,
    )


def _words(facts: Facts) -> Iterator[str]:
    study, rows = facts.study, facts.setting["rows"] or {}
    seeds = study.get("seeds") or []
    if rows:
        yield (
            f"Each trial trains the adapters of one placement on {rows['train']:,} rows, with the "
            f"base frozen, and is scored on {counted(rows['test'], 'test row')}. Trials of one "
            "seed see the same rows in the same order, whatever their placement, and a site has "
            f"the same initial A in every placement that adapts it. Seeds: "
            f"{', '.join(map(str, seeds))}."
        )
    yield from _of_rates(study, rows)
    yield (
        "The loss is Σ nll / Σ scored tokens over all rows of a split together, in nats and fp32; "
        "labels are shifted once. Perplexity is exp of it."
        if facts.setting["task"] != "classification"
        else "The loss is the mean over rows of -ln p of the right class, in nats."
    )
    yield (
        "Differences are paired by seed and row. Their intervals rest on crossed components of "
        "variance, seeds by rows, with t and Satterthwaite's degrees of freedom, and cover what "
        "would happen with new seeds and new rows; with one seed they are a bootstrap over rows "
        "and cover that seed alone. Intervals of mean losses are come by in the "
        "same way."
    )
    if study.get("margin") is not None:
        yield (
            f"The margin is {study['margin'] * 100:g}% of the baseline's gain over the untuned "
            "base, tested within each seed. Equivalent: within it on both sides, by two one-sided "
            "tests; not inferior: below its upper end. Each question is asked at 5%, adjusted by "
            "Holm over the placements."
        )


def _of_rates(study: Mapping[str, Any], rows: Mapping[str, int]) -> Iterator[str]:
    tried = (study.get("training") or {}).get("learning_rate") or []
    if len(tried) > 1:
        swept = study.get("sweep_seeds") or len(study.get("seeds") or [])
        yield (
            f"The learning rate was chosen for each placement among {', '.join(map(_g, tried))} by "
            f"the mean loss of {counted(swept, 'seed')} on "
            f"{counted(rows.get('validation', 0), 'validation row')}; the other seeds ran at the "
            "chosen rate. A rate at which a seed diverged could not be chosen."
        )


def _g(value: float) -> str:
    return f"{value:g}"


def _tables(facts: Facts) -> Iterator[Table]:
    study, identity = facts.study, facts.setting["identity"] or {}
    environment = facts.setting["environment"] or {}
    model = study.get("model") or {}
    yield _pairs("model", "Model", {
        "name": model.get("name"),
        "revision": model.get("revision"),
        "parameters": _thousands(facts.setting["base_parameters"]),
        "digest of its weights": identity.get("base"),
        "digest of its sites": None if facts.anatomy is None else facts.anatomy.digest,
    })  # fmt: skip
    rows = facts.setting["rows"] or {}
    data = study.get("data") or {}
    counted_above = {"train", "validation", "test"}
    idle = set() if facts.setting["task"] == "masked" else {"mask_share"}
    yield _pairs("data", "Data", {
        **{f"{split} rows": _thousands(count) for split, count in rows.items()},
        **{key: data[key] for key in data if key not in counted_above | idle},
        "classes": ", ".join(facts.setting["classes"] or []),
        "digest of the rows": identity.get("data_rows"),
    })  # fmt: skip
    yield _pairs("training", "Training", {
        **{f"LoRA {key}": value for key, value in (study.get("lora") or {}).items()},
        **_training(study.get("training") or {}),
        "steps of a trial": facts.setting["steps_per_trial"],
    })  # fmt: skip
    yield _pairs("machine", "Machine", {key: environment.get(key) for key in _MACHINE})
    versions = {key: value for key, value in environment.items() if key not in _MACHINE}
    yield _pairs("versions", "Versions", versions)
    yield _digests(facts)


def _training(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was asked; a number of steps takes the place of epochs."""
    return {k: v for k, v in asked.items() if k != "epochs" or asked.get("steps") is None}


def _thousands(count: int | None) -> str | None:
    return None if count is None else f"{count:,}"


def _pairs(name: str, title: str, found: Mapping[str, Any]) -> Table:
    kept = {key: value for key, value in found.items() if value not in (None, "", {}, [])}
    return Table(
        name=name,
        title=title,
        columns=columns("what", "value", words=("value",)),
        rows=[
            [text(_WORDS.get(key, key.replace("_", " "))), text(_plain(value))]
            for key, value in kept.items()
        ],
    )


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _digests(facts: Facts) -> Table:
    return Table(
        name="digests",
        title="Placements as they were resolved",
        columns=columns("placement", "rule", "digest", words=("rule", "digest")),
        rows=[[text(each.name), text(each.rule), text(each.digest)] for each in facts.placements],
        notes=("SHA-256 of sites, ranks and scales; names and rules are no part of it.",),
    )
