"""What is said of exported weights: a model card in Markdown, as the hub shows it."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loratlas.bundled import DEMO_MODELS
from loratlas.export.evidence import Evidence
from loratlas.export.subject import Subject
from loratlas.placement.placement import Placement
from loratlas.printable import printable

FILE_NAME = "README.md"
_TEMPLATES = Path(__file__).parent / "templates"
_KINDS = {
    "peft": "a LoRA adapter in PEFT's format, as it was trained",
    "uniform": "a LoRA adapter at one rank with scale 1, which computes what the trained one does",
    "vllm": "a LoRA adapter at one rank with scale 1, which computes what the trained one does",
    "merged": "a whole model: the base with the adapter merged into its weights",
}


def card(target: str, subject: Subject, written: Placement, evidence: Evidence) -> str:
    """Return the model card of exported weights.

    Args:
        target: what they were exported for.
        subject: what was exported.
        written: its adapters as they were written.
        evidence: what the run says of the placement.
    """
    # Imported here: only weights have a card.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is Markdown; free text goes through the filter `plain`
    )
    templates.filters["plain"] = plain
    facts = _facts(target, subject, written)
    return templates.get_template("card.md").render(**facts, evidence=evidence)


def plain(text: Any) -> str:
    """Return free text that stands in Markdown as it is: on one line, its marks escaped."""
    safe = printable(" ".join(str(text).split()))
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#{}" else letter for letter in safe)


def _facts(target: str, subject: Subject, written: Placement) -> dict[str, Any]:
    on_the_hub = not Path(subject.model.name).exists() and subject.model.name not in DEMO_MODELS
    families: dict[str, list[int]] = {}
    for adapter in subject.placement.adapters:
        families.setdefault(str(adapter.site.role), []).append(adapter.rank)
    return {
        "target": target,
        "kind": _KINDS[target],
        "merged": target == "merged",
        "name": subject.name,
        "seed": subject.trial.seed,
        "learning_rate": subject.trial.learning_rate,
        "base": subject.model.name if on_the_hub else Path(subject.model.name).name,
        "base_json": json.dumps(subject.model.name) if on_the_hub else None,
        "revision": subject.model.revision,
        "base_digest": subject.base_digest,
        "placement_digest": subject.placement.digest,
        "trial_digest": subject.trial.digest,
        "parameters": subject.placement.trainable_parameters,
        "num_sites": len(subject.placement.adapters),
        "roles": [(role, len(ranks), sorted(set(ranks))) for role, ranks in families.items()],
        "scales": subject.scales,
        "written_rank": written.adapters[0].rank if target in ("uniform", "vllm") else None,
        "num_filled": len(written.adapters) - len(subject.placement.adapters),
        "version": version("loratlas"),
    }
