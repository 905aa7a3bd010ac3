"""Over every language-model class of transformers: how many sites in blocks carry a role?"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping

import pytest
from model_classes import classes, default_config, small_config
from transformers import LlamaConfig

from loratlas.anatomy.read import read
from loratlas.anatomy.sites import Anatomy
from loratlas.errors import ModelError

# Classes of the library that do not build from their own default configuration, with the
# reason. Another version, or Pillow, may mend one; a new one fails the test.
DO_NOT_BUILD: Mapping[str, str] = {
    "CohereCompassForCausalLM": "its default layer types are not those that its class knows",
    "DbrxForCausalLM": "its attention configuration lacks the rope_theta that its class reads",
    "Gemma3nForConditionalGeneration": "its vision tower needs the image library Pillow",
    "Gemma4AssistantForCausalLM": "its default configuration refuses itself",
    "Gemma4UnifiedAssistantForCausalLM": "its default layer types contradict each other",
    "Qwen4ExpForCausalLM": "its default configuration leaves widths open",
}

# Convolutions of width 1 for maps, and a model that runs with sound only.
WITHOUT_SITES_IN_BLOCKS = {
    "SqueezeBertForMaskedLM",
    "VoxtralRealtimeForConditionalGeneration",
}

# Decoders that are built alone from families with an encoder: their cross-attention runs only
# with the states of an encoder, and so does a block of Mllama that holds nothing else.
DECODERS_ALONE = {
    "BartForCausalLM",
    "BigBirdPegasusForCausalLM",
    "BlenderbotForCausalLM",
    "BlenderbotSmallForCausalLM",
    "MBartForCausalLM",
    "MarianForCausalLM",
    "MllamaForCausalLM",
    "MusicgenForCausalLM",
    "MvpForCausalLM",
    "PLBartForCausalLM",
    "PegasusForCausalLM",
    "ProphetNetForCausalLM",
    "TrOCRForCausalLM",
    "WhisperForCausalLM",
}

LEAST_COVERAGE = 0.95


def _read_class(model_type: str, architecture: str, folder) -> Anatomy | str:
    """Return the anatomy of the small model of a class, else why it does not build."""
    error = ""
    for make in (small_config, default_config):
        try:
            (folder / "config.json").write_text(json.dumps(make(model_type, architecture)))
            return read(folder, cache=False)
        except ModelError as caught:
            error = str(caught).partition("can be built from it: ")[2] or str(caught)
        except Exception as caught:  # a default configuration may refuse itself
            error = f"{type(caught).__name__}: {' '.join(str(caught).split())}"
    return error


@pytest.mark.slow
def test_at_least_95_percent_of_sites_in_blocks_carry_a_role(tmp_path, capsys):
    left: dict[str, Counter[str]] = {}
    without_blocks: set[str] = set()
    waiting: set[str] = set()
    unbuilt: dict[str, str] = {}
    total = 0
    for model_type, architecture in classes():
        found = _read_class(model_type, architecture, tmp_path)
        if isinstance(found, str):
            unbuilt[architecture] = found
            continue
        sites = [site for site in found.sites if site.in_block]
        total += len(sites)
        without_blocks |= set() if sites else {architecture}
        crossing = [site for site in sites if site.role.family == "cross_attention"]
        waiting |= {architecture} if any(site.idle for site in crossing) else set()
        reasons = Counter(str(site.reason) for site in sites if site.role.family == "other")
        if reasons:
            left[f"{model_type} {architecture}"] = reasons
    num_left = sum(reasons.total() for reasons in left.values())
    with capsys.disabled():
        _print(left, unbuilt, num_left, total)
    assert without_blocks == WITHOUT_SITES_IN_BLOCKS
    assert waiting == DECODERS_ALONE
    assert set(unbuilt) <= set(DO_NOT_BUILD), "a class no longer builds"
    assert 1 - num_left / total >= LEAST_COVERAGE


def _print(left, unbuilt, num_left, total) -> None:
    print(
        f"\n{total - num_left} of {total} sites in blocks carry a role: {1 - num_left / total:.2%}"
    )
    for name, reasons in left.items():
        for reason, count in reasons.items():
            print(f"{count:6d}  {name}: {reason}")
    for name, reason in unbuilt.items():
        print(f"not built  {name}: {reason[:120]}")


# Imports what a fresh process imports, then measures what is added by reading one model.
_PROBE = """
import resource, sys, time
import torch, transformers
from transformers import LlamaForCausalLM
from loratlas.anatomy import build, survey
from loratlas.anatomy.read import read
before = time.perf_counter()
read(sys.argv[1], cache=False)
print(time.perf_counter() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_model_of_70_billion_parameters_is_read_quickly_in_little_memory(write_config):
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=8192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    )
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(write_config(config.to_dict()))],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, kibibytes = map(float, done.stdout.split()[-2:])
    # Under 2 s on a machine of its own; the bound leaves room for a busy one.
    assert seconds < 8
    assert kibibytes * 1024 < 1.5e9
