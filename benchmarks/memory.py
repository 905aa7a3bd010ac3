"""Is the peak of memory what plans say? Run: ``python benchmarks/memory.py [--quick] [--write]``.

Small random models of every described family take a training step with PEFT, by placement and
setting. On the CPU the modelled peak is held against the sum of the profiler's allocation events;
where there is a GPU also, with larger models of the same families, against
``torch.cuda.max_memory_allocated``. ``--write`` puts the figures into ``results/memory.md``.
"""

import argparse
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from planner import MODELS as PLANNED
from planner import Case, Training, measured_memory, read_config

from loratlas.anatomy.sites import Anatomy
from loratlas.cost.plan import Estimator
from loratlas.cost.setting import Workload
from loratlas.errors import PlacementError
from loratlas.placement.placement import place

RESULTS = Path(__file__).parent / "results" / "memory.md"

_ENCODER = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 4, "vocab_size": 512, "max_position_embeddings": 256,
}  # fmt: skip
_GATED = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
    "vocab_size": 512, "max_position_embeddings": 256,
}  # fmt: skip
_ROUTED = {**_GATED, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_BART = {
    "d_model": 64, "encoder_layers": 3, "decoder_layers": 4, "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "vocab_size": 512, "max_position_embeddings": 256, "pad_token_id": 1,
    "decoder_start_token_id": 2,
}  # fmt: skip


def _of(model_type: str, architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [architecture], **config}


MODELS: dict[str, dict[str, Any]] = {
    **PLANNED,
    "opt": _of(
        "opt",
        "OPTForCausalLM",
        {**_ENCODER, "ffn_dim": 256, "word_embed_proj_dim": 64},
    ),
    "gpt_neox": _of("gpt_neox", "GPTNeoXForCausalLM", _ENCODER),
    "phi": _of("phi", "PhiForCausalLM", _GATED),
    "stablelm": _of("stablelm", "StableLmForCausalLM", _GATED),
    "starcoder2": _of("starcoder2", "Starcoder2ForCausalLM", _GATED),
    "mistral": _of("mistral", "MistralForCausalLM", _GATED),
    "qwen2": _of("qwen2", "Qwen2ForCausalLM", _GATED),
    "smollm3": _of("smollm3", "SmolLM3ForCausalLM", _GATED),
    "olmo2": _of("olmo2", "Olmo2ForCausalLM", _GATED),
    "granite": _of("granite", "GraniteForCausalLM", _GATED),
    "phi3": _of("phi3", "Phi3ForCausalLM", _GATED),
    "gemma": _of("gemma", "GemmaForCausalLM", _GATED),
    "gemma2": _of("gemma2", "Gemma2ForCausalLM", _GATED),
    "gemma3_text": _of("gemma3_text", "Gemma3ForCausalLM", _GATED),
    "olmoe": _of("olmoe", "OlmoeForCausalLM", {**_ROUTED, "intermediate_size": 48}),
    "qwen2_moe": _of(
        "qwen2_moe", "Qwen2MoeForCausalLM", {**_ROUTED, "shared_expert_intermediate_size": 80}
    ),
    "qwen3_moe": _of("qwen3_moe", "Qwen3MoeForCausalLM", _ROUTED),
    "roberta": _of("roberta", "RobertaForMaskedLM", _ENCODER),
    "xlm-roberta": _of("xlm-roberta", "XLMRobertaForMaskedLM", _ENCODER),
    "electra": _of("electra", "ElectraForMaskedLM", {**_ENCODER, "embedding_size": 32}),
    "distilbert": _of(
        "distilbert",
        "DistilBertForMaskedLM",
        {
            "dim": 64, "hidden_dim": 256, "n_layers": 4, "n_heads": 4, "vocab_size": 512,
            "max_position_embeddings": 256,
        },
    ),
    "bart": _of("bart", "BartForConditionalGeneration", _BART),
    "mbart": _of("mbart", "MBartForConditionalGeneration", _BART),
}  # fmt: skip

RULES = (
    "all",
    "attention",
    "feed_forward",
    "all @ last(2)",
    "attention.o @ layers(1)",
    "feed_forward.down @ last(1)",
    "expert.down",
    "expert.gate_up @ last(2)",
    "router",
    "all | router",
    "head",
)
_CHECKPOINTED = {"checkpointing": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "experts one by one": {"experts": "eager"},
    "eager attention": {"attention": "eager"},
    "dropout on adapters": {"lora_dropout": 0.1},
    "bf16 base": {"width": 2},
    "4 micro-batches": {"passes": 4},
    "checkpointed": _CHECKPOINTED,
    "checkpointed, input gradients": {**_CHECKPOINTED, "input_gradients": True},
}
# Widths and vocabulary that grow on a GPU, so that its kernels' workspaces weigh little.
_GROWING = (
    "hidden_size", "intermediate_size", "n_embd", "d_model", "d_kv", "d_ff", "dim", "hidden_dim",
    "ffn_dim", "word_embed_proj_dim", "encoder_ffn_dim", "decoder_ffn_dim", "head_dim",
    "moe_intermediate_size", "shared_expert_intermediate_size", "embedding_size", "vocab_size",
    "max_position_embeddings", "n_positions",
)  # fmt: skip
_GROWTH = 16


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement: bytes modelled and measured, and what is there before the step."""

    device: str
    model: str
    setting: str
    rule: str
    modelled: int
    measured: int
    resident: int

    @property
    def error(self) -> float:
        """How far the modelled peak is off, as a share of the measured one."""
        return self.modelled / self.measured - 1

    @property
    def step_error(self) -> float:
        """The same without weights, adapters and averages."""
        return (self.modelled - self.resident) / (self.measured - self.resident) - 1


def case_of(name: str, anatomy: Anatomy, rule: str, setting: str, *, growth: int = 1) -> Case:
    """Return one placement of one family in one setting.

    Raises:
        PlacementError: the family has no such sites.
    """
    changes = {"attention": "sdpa", "experts": "grouped_mm", **SETTINGS[setting]}
    both = len(anatomy.stacks) > 1
    workload = Workload.alike(
        2,
        96 * growth,
        decoder_tokens=48 * growth if both else None,
        passes=changes.pop("passes", 1),
        padded=True,
    )
    return Case(
        anatomy=anatomy,
        config=enlarged(MODELS[name], growth),
        placement=place(anatomy, rule, rank=4, alpha=8),
        workload=workload,
        **changes,
    )


def enlarged(config: Mapping[str, Any], growth: int) -> dict[str, Any]:
    """Return a configuration whose widths are larger by a factor."""
    return {key: value * growth if key in _GROWING else value for key, value in config.items()}


def measure(case: Case, name: str, rule: str, setting: str, device: str) -> Row | None:
    """Return a measurement, None where the plan has no figure to hold against it."""
    estimator = Estimator(case.anatomy, case.setting())
    if estimator.cost(case.placement).memory is None:
        return None
    on_cpu = device == "cpu"
    modelled = Estimator(case.anatomy, case.setting(on_cpu=on_cpu)).memory_as_modelled(
        case.placement
    )
    return Row(
        device=device,
        model=name,
        setting=setting,
        rule=rule,
        modelled=modelled.peak,
        measured=measured_memory(case) if on_cpu else measured_on_cuda(case),
        resident=modelled.peak - modelled.step,
    )


def measured_on_cuda(case: Case) -> int:
    """Return the allocator's peak during a step that is not the first."""
    import torch

    training = Training(case, "cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    training.step()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    del training
    torch.cuda.empty_cache()
    return peak


def rows(device: str, *, quick: bool = False) -> Iterator[Row]:
    """Yield the measurements on a device: every family, setting and rule that there is."""
    growth = 1 if device == "cpu" else _GROWTH
    for name, config in MODELS.items():
        anatomy = read_config(enlarged(config, growth))
        for setting in ("plain",) if quick else SETTINGS:
            if setting == "experts one by one" and not any(s.num_experts for s in anatomy.sites):
                continue
            for rule in RULES if setting == "plain" else RULES[::5]:
                try:
                    case = case_of(name, anatomy, rule, setting, growth=growth)
                    row = measure(case, name, rule, setting, device)
                except PlacementError:
                    continue  # the family has no such sites
                except ValueError as error:
                    if "dropout" not in str(error):
                        raise
                    continue  # PEFT refuses dropout on experts
                if row is not None:
                    yield row


def table(found: list[Row]) -> str:
    """Return the largest errors by family and setting, as a table."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        groups[row.model, row.setting].append(row)
    lines = [
        "| model | setting | placements | largest error | of the step | median error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (model, setting), group in groups.items():
        errors = [abs(row.error) for row in group]
        lines.append(
            f"| {model} | {setting} | {len(group)} | {max(errors):.2%} |"
            f" {max(abs(row.step_error) for row in group):.2%} | {np.median(errors):.2%} |"
        )
    return "\n".join(lines)


def report(found: Mapping[str, list[Row]]) -> str:
    """Return the page of results."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    parts = [
        "# Peak memory: modelled against measured",
        f"`python benchmarks/memory.py --write`; Python {platform.python_version()}, {packages}; "
        "small random models, 2 rows of 96 tokens, one of them padded, rank 4. On a GPU widths "
        f'and rows are {_GROWTH} times as large. "Of the step" leaves out weights, adapters and '
        "the optimiser's averages. Experts run in one grouped product unless said otherwise.",
    ]
    for device, measured in found.items():
        worst = max(measured, key=lambda row: abs(row.error))
        parts += [
            f"## {_TITLES[device]}",
            f"{len(measured)} measurements; largest error {worst.error:+.2%} "
            f"({worst.model}, {worst.rule}, {worst.setting}).",
            table(measured),
        ]
    if "cuda" not in found:
        parts += [f"## {_TITLES['cuda']}", "Not measured: this machine had no GPU."]
    return "\n\n".join(parts) + "\n"


_TITLES = {
    "cpu": "CPU, against the profiler's allocation events",
    "cuda": "CUDA, against the allocator's peak",
}


def main() -> None:
    """Measure, print, and write where asked to."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the plain setting only")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    found: dict[str, list[Row]] = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        found[device] = list(rows(device, quick=options.quick))
    page = report(found)
    print(page)
    if options.write:
        RESULTS.write_text(page)


if __name__ == "__main__":
    main()
