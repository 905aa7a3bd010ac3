"""How true are plans, and how fast? Run: ``python benchmarks/planner.py [--quick] [--json FILE]``.

Small random models of several families are trained for a step with PEFT. FLOPs are held against
``torch.utils.flop_counter.FlopCounterMode`` under eager attention and eager experts (its counts
for fused ones are zero on a CPU); peak memory against the sum of the profiler's allocation
events. Then 100 placements of a Llama-3.1-8B shape are planned against the clock.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loratlas.anatomy.read import read
from loratlas.anatomy.sites import Anatomy
from loratlas.cost.blueprint import read_blueprint
from loratlas.cost.plan import Estimator
from loratlas.cost.setting import Attention, Experts, Setting, Workload
from loratlas.placement.placement import Placement, place

_SMALL = {"vocab_size": 512, "max_position_embeddings": 256}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_layer": 4,
        "n_head": 4, "n_positions": 256, "vocab_size": 512,
    },
    "llama": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64,
        "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "tie_word_embeddings": False, **_SMALL,
    },
    "qwen3": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 64,
        "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, **_SMALL,
    },
    "bert": {
        "model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 64,
        "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, **_SMALL,
    },
    "t5": {
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64,
        "d_kv": 16, "d_ff": 160, "num_layers": 3, "num_decoder_layers": 4, "num_heads": 4,
        "vocab_size": 512, "decoder_start_token_id": 0,
    },
    "mixtral": {
        "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
        "tie_word_embeddings": False, **_SMALL,
    },
}  # fmt: skip
RULES = (
    "all",
    "attention",
    "feed_forward",
    "all @ last(1)",
    "all @ last(2)",
    "all @ layers(50%..)",
    "attention.o @ layers(1)",
    "attention.q | attention.qkv",
    "feed_forward.down",
    "feed_forward.down @ last(1)",
    "head",
    "embedding",
)
LLAMA_8B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}  # fmt: skip
_IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Case:
    """One placement of one model on one batch."""

    anatomy: Anatomy
    config: dict[str, Any]
    placement: Placement
    workload: Workload
    attention: Attention = "eager"
    experts: Experts = "eager"
    checkpointing: bool = False
    input_gradients: bool = False
    width: int = 4
    lora_dropout: float = 0.0
    base_dropout: float = 0.0

    def setting(self, *, on_cpu: bool = True) -> Setting:
        """Return what the planner is told of it."""
        return Setting(
            blueprint=read_blueprint(self.config, base_dropout=self.base_dropout),
            workload=self.workload,
            dropout=self.lora_dropout,
            width=self.width,
            on_cpu=on_cpu,
            attention=self.attention,
            experts=self.experts,
            checkpointing=self.checkpointing,
            input_gradients=self.input_gradients,
        )


def read_config(config: dict[str, Any]) -> Anatomy:
    """Return the anatomy of a configuration."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        return read(folder, cache=False)


def build(case: Case) -> Any:
    """Return the small random model of a case with PEFT's adapters in it, ready to train."""
    import torch
    import transformers
    from peft import get_peft_model
    from transformers import CONFIG_MAPPING

    from loratlas.train.dropout import set_dropout

    torch.manual_seed(0)
    config = CONFIG_MAPPING[case.config["model_type"]].from_dict(dict(case.config))
    set_dropout(config, case.base_dropout)
    config.use_cache = False
    steps = case.setting().attends_in_steps
    config._attn_implementation = "eager" if steps else case.attention
    stacked = any(site.num_experts for site in case.anatomy.sites)
    config._experts_implementation = case.experts if stacked else "eager"
    model = getattr(transformers, case.config["architectures"][0])(config)
    model.config.use_cache = False
    if case.width == 2:
        model = model.to(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tied heads are wanted here
        model = get_peft_model(model, case.placement.to_peft(dropout=case.lora_dropout)).train()
    if case.checkpointing:
        base = model.get_base_model()
        base.activation_checkpointing_enable({"use_reentrant": False})
        if not case.input_gradients:
            base.disable_input_require_grads()
    return model


def batch(case: Case) -> dict[str, Any]:
    """Return one batch of the case's shape; its last row is short if the case is padded."""
    import torch

    workload, vocabulary = case.workload, case.config["vocab_size"]
    shape = (workload.rows, workload.tokens)
    ids = torch.randint(5, vocabulary, shape)
    inputs = {"input_ids": ids, "attention_mask": torch.ones(shape, dtype=torch.long)}
    if workload.padded:
        inputs["attention_mask"][-1, workload.tokens // 2 :] = 0
    labels = ids.clone()
    if workload.decoder_tokens is not None:
        labels = torch.randint(5, vocabulary, (workload.rows, workload.decoder_tokens))
    return {**inputs, "labels": labels}


def counted_flops(case: Case) -> tuple[int, int]:
    """Return PyTorch's count of a step's operations, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    model, inputs = build(case), batch(case)
    with FlopCounterMode(display=False) as counter:
        loss = model(**inputs).loss
        forward = counter.get_total_flops()
        if loss.requires_grad:
            loss.backward()
    return forward, counter.get_total_flops() - forward


class Training:
    """A model, a batch and an optimiser, with one step behind them."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        import torch

        self._passes = round(case.workload.passes)
        self._model = build(case).to(device)
        self._inputs = {key: value.to(device) for key, value in batch(case).items()}
        trained = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-4)
        self.step()

    def step(self) -> None:
        """Run the micro-batches of a step one after another, and update."""
        for _ in range(self._passes):
            self._model(**self._inputs).loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def resident(self) -> int:
        """Return the bytes that are there before a step: weights, averages, rows."""
        weights = sum(p.numel() * p.element_size() for p in self._model.parameters())
        state = self._optimizer.state.values()
        averages = sum(v.numel() * 4 for each in state for v in each.values())
        return weights + averages + sum(t.numel() * 8 for t in self._inputs.values())


def measured_memory(case: Case) -> int:
    """Return the most bytes of tensors in use during a step that is not the first."""
    from torch.profiler import ProfilerActivity, profile

    training = Training(case)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        training.step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return training.resident() + peak


def flops_errors(quick: bool) -> Iterator[dict[str, Any]]:
    """Yield how far planned operations are from PyTorch's count."""
    for name, config in MODELS.items():
        anatomy = read_config(config)
        for rule in _rules(name, quick):
            case = Case(
                anatomy=anatomy,
                config=config,
                placement=place(anatomy, rule, rank=4, alpha=8),
                workload=workload(name),
            )
            planned = Estimator(anatomy, case.setting()).cost(case.placement).flops
            assert planned is not None
            forward, backward = counted_flops(case)
            yield {
                "model": name,
                "rule": rule,
                "counted": forward + backward,
                "planned": planned.total,
                "forward_error": planned.forward / forward - 1,
                "backward_error": planned.backward / backward - 1,
                "error": planned.total / (forward + backward) - 1,
            }


MEMORY_SETTINGS: dict[str, dict[str, Any]] = {
    "padded": {},
    "eager": {"attention": "eager"},
    "dropout": {"lora_dropout": 0.1, "base_dropout": 0.1},
}


def memory_errors(quick: bool) -> Iterator[dict[str, Any]]:
    """Yield how far planned peak memory is from the profiler's allocation events.

    ``step_error`` leaves out what is there before the step: weights, adapters, averages.
    """
    names = [name for name in MODELS if name != "mixtral"]
    for setting, changes in list(MEMORY_SETTINGS.items())[: 1 if quick else None]:
        for name in names:
            anatomy = read_config(MODELS[name])
            for rule in _rules(name, quick):
                case = Case(
                    anatomy=anatomy,
                    config=MODELS[name],
                    placement=place(anatomy, rule, rank=4, alpha=8),
                    workload=workload(name, padded=True),
                    **{"attention": "sdpa", **changes},
                )
                planned = Estimator(anatomy, case.setting()).cost(case.placement).memory
                assert planned is not None
                measured = measured_memory(case)
                there = planned.peak - planned.step
                yield {
                    "model": name,
                    "rule": rule,
                    "setting": setting,
                    "measured": measured,
                    "planned": planned.peak,
                    "error": planned.peak / measured - 1,
                    "step_error": planned.step / (measured - there) - 1,
                }


def _rules(name: str, quick: bool) -> list[str]:
    # T5's only embeddings in use are those of its stacks; its relative positions are others.
    rules = [rule for rule in RULES if name != "t5" or rule != "embedding"]
    return rules[::4] if quick else rules


def workload(name: str, *, padded: bool = False) -> Workload:
    """Return the batch that the small models are measured on."""
    decoder_tokens = 48 if name == "t5" else None
    return Workload.alike(2, 96, decoder_tokens=decoder_tokens, padded=padded)


def planning_seconds(num_placements: int = 100) -> dict[str, Any]:
    """Plan placements of a Llama-3.1-8B shape and time all of it but reading the model."""
    anatomy = read_config(LLAMA_8B)
    families = ("all", "attention", "feed_forward", "attention.q | attention.v")
    rules = [f"({family}) @ layers({start}..)" for start in range(32) for family in families][
        :num_placements
    ]
    setting = Setting(
        blueprint=read_blueprint(LLAMA_8B),
        workload=Workload.alike(4, 512, padded=True),
        width=2,
    )
    place(anatomy, "all")  # the grammar is compiled once a process, at the first rule
    began, began_cpu = time.perf_counter(), time.process_time()
    estimator = Estimator(anatomy, setting)
    costs = [
        estimator.cost(place(anatomy, rule, rank=4 + number % 13))
        for number, rule in enumerate(rules)
    ]
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    assert all(cost.flops is not None and cost.memory is not None for cost in costs)
    return {"num_placements": len(costs), "seconds": seconds, "cpu_seconds": cpu_seconds}


def main() -> None:
    """Run the benchmark and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few placements of each model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    found: dict[str, Any] = {"planning": planning_seconds()}
    planning = found["planning"]
    print(
        f"{planning['num_placements']} placements planned in {planning['seconds']:.2f} s"
        f" ({planning['cpu_seconds']:.2f} s of one core)"
    )
    print(f"\n{'model':8} {'placement':30} {'FLOPs':>14} {'error':>9}")
    found["flops"] = []
    for row in flops_errors(options.quick):
        found["flops"].append(row)
        print(f"{row['model']:8} {row['rule']:30} {row['counted']:14,} {row['error']:+9.3%}")
    print(f"\n{'model':8} {'placement':30} {'setting':8} {'bytes':>12} {'error':>9} {'step':>9}")
    found["memory"] = []
    for row in memory_errors(options.quick):
        found["memory"].append(row)
        print(
            f"{row['model']:8} {row['rule']:30} {row['setting']:8} {row['measured']:12,}"
            f" {row['error']:+9.3%} {row['step_error']:+9.3%}"
        )
    for part in ("flops", "memory"):
        worst = max(found[part], key=lambda row: abs(row["error"]))
        print(f"largest error, {part}: {worst['error']:+.3%} ({worst['model']}, {worst['rule']})")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
