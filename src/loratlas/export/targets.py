"""Which consumers are there, and what can each of them not express?

What is said here of a consumer was read in its source: vLLM's `PEFTHelper` and `LoRAConfig`,
Axolotl's configuration schema and adapter loader, LLaMA-Factory's `LoraArguments` and
``model/adapter.py``, Unsloth's ``get_peft_model``. docs/export.md has the versions.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loratlas.anatomy.sites import Family
from loratlas.errors import ExportError
from loratlas.export.subject import Subject
from loratlas.placement.peft_config import config_fields, reached_as_parameters

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What ``--max-lora-rank`` of vLLM may be."""

_TASKS = {
    "masked": "a masked language model",
    "seq2seq": "a sequence-to-sequence model",
    "classification": "a classifier",
}
_SHOWN = 4


def require_expressible(target: str, subject: Subject) -> None:
    """Refuse a target that cannot express what is to be exported.

    Raises:
        ExportError: says what the target cannot express, and which target can.
    """
    fault = next(_FAULTS.get(target, _nothing)(subject), None)
    if fault is not None:
        what, instead = fault
        raise ExportError(f"{subject.title}: {target} cannot express {what}; use --to {instead}")


def peft_fields(subject: Subject) -> dict[str, Any]:
    """Return the arguments of PEFT's `LoraConfig` for what was trained."""
    return config_fields(subject.placement, subject.dropout)


def listed(values: list[Any]) -> str:
    """Return values as text, the first few of many."""
    shown = ", ".join(f"{value:g}" if isinstance(value, float) else str(value)
                      for value in values[:_SHOWN])  # fmt: skip
    return shown if len(values) <= _SHOWN else f"{shown} and {len(values) - _SHOWN} more"


Fault = tuple[str, str]
"""What a target cannot express, and which targets can."""


def _nothing(_subject: Subject) -> Iterator[Fault]:
    yield from ()


def _merged(subject: Subject) -> Iterator[Fault]:
    """A tied head shares its weight with the embedding; merged, a change of one is one of both."""
    if not subject.placement.anatomy.tied_head:
        return
    tied = _of_vocabulary(subject)
    if tied:
        yield f"an adapter on {tied[0]} alone, whose weight embedding and head share", "peft"


def _causal(subject: Subject) -> Iterator[Fault]:
    if subject.task != "causal":
        yield _TASKS.get(subject.task, f"a model for {subject.task}"), "peft, uniform or merged"


def _axolotl(subject: Subject) -> Iterator[Fault]:
    yield from _causal(subject)
    fields = peft_fields(subject)
    alphas = [fields["lora_alpha"], *fields["alpha_pattern"].values()]
    broken = sorted({alpha for alpha in alphas if not isinstance(alpha, int)})
    if broken:
        yield f"an alpha that is no integer ({listed(broken)})", "trl, unsloth or uniform"


def _llama_factory(subject: Subject) -> Iterator[Fault]:
    yield from _causal(subject)
    if len(subject.ranks) > 1:
        yield (
            f"ranks that differ by site ({listed(subject.ranks)}): it takes one for all",
            "trl, axolotl or unsloth",
        )
    fields = peft_fields(subject)
    if fields["alpha_pattern"]:
        yield "alphas that differ by site: it takes one for all", "trl, axolotl or unsloth"
    if not isinstance(fields["lora_alpha"], int):
        yield f"an alpha that is no integer ({fields['lora_alpha']:g})", "trl or unsloth"
    yield from _lists_of_modules(subject, fields)


def _lists_of_modules(subject: Subject, fields: Mapping[str, Any]) -> Iterator[Fault]:
    """It takes names of modules, each of which PEFT also finds at the end of a longer path."""
    parameters = reached_as_parameters(subject.placement)
    instead = "trl, axolotl or unsloth"
    if parameters:
        yield f"adapters of parameters, such as {parameters[0].site.path}", instead
    if isinstance(fields["target_modules"], str):
        yield (
            "targets that take a regular expression, because a path that is placed is the end of "
            "one that is not",
            instead,
        )


def _unsloth(subject: Subject) -> Iterator[Fault]:
    yield from _causal(subject)
    whole = _of_vocabulary(subject)
    if whole:
        yield f"an adapter on {whole[0]}, which it trains whole instead", "trl or axolotl"


def _of_vocabulary(subject: Subject) -> list[str]:
    """Return the adapted sites that are as large as the vocabulary: embeddings and heads."""
    return [
        adapter.site.path
        for adapter in subject.placement.adapters
        if adapter.site.role.family in (Family.EMBEDDING, Family.HEAD)
    ]


def _vllm(subject: Subject) -> Iterator[Fault]:
    yield from _causal(subject)
    rank = max(subject.ranks)
    if rank > VLLM_RANKS[-1]:
        yield f"rank {rank}: its highest is {VLLM_RANKS[-1]}", "merged"
    parameters = reached_as_parameters(subject.placement)
    if parameters:
        yield f"adapters of parameters, such as {parameters[0].site.path}", "merged"


_FAULTS: Mapping[str, Callable[[Subject], Iterator[Fault]]] = {
    "merged": _merged,
    "trl": _causal,
    "axolotl": _axolotl,
    "llama-factory": _llama_factory,
    "unsloth": _unsloth,
    "vllm": _vllm,
}

TARGETS = ("peft", "uniform", "merged", "trl", "axolotl", "llama-factory", "unsloth", "vllm")
