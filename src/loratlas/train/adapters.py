"""How adapters are put into a frozen base, written to disk, and read back.

The base is loaded once and lent to one trial at a time: adapters go in, and come out again
whatever happens in between.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

from loratlas.errors import VerificationError
from loratlas.placement.peft_config import adapter_config, to_peft
from loratlas.placement.placement import Placement
from loratlas.train import randomness
from loratlas.train.base import Base, quiet
from loratlas.train.durable import sync, sync_folder
from loratlas.train.head import initialise_head
from loratlas.train.verify import ADAPTER_NAME, verify, wrapped_layers

# On a GPU the same sum may be taken in another order; on a CPU it is not.
_GPU_TOLERANCE = 1e-5
# Two engines take sums of a few thousand products in different orders; in bf16 each is rounded to
# 8 bits on the way, layer after layer.
_ENGINE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
# Where PEFT keeps the copy of a module that is trained whole.
_TRAINED_HEAD = f".modules_to_save.{ADAPTER_NAME}"


@contextmanager
def new_adapters(base: Base, placement: Placement, *, seed: int, dropout: float) -> Iterator[Any]:
    """Wrap the base in fresh adapters, checked against the placement, for a while.

    Yields:
        the PEFT model; A is drawn by `randomness` per (seed, site), B is zero.

    Raises:
        VerificationError: what PEFT wrapped is not the placement.
    """
    with _without_advice():
        config = to_peft(placement, dropout=dropout)
        config.modules_to_save = list(base.head) or None
        model = get_peft_model(base.model, config)
    try:
        verify(model, placement, whole=base.head)
        initialise(model, seed=seed)
        initialise_head(model.base_model.model, base.head, seed=seed, suffix=_TRAINED_HEAD)
        yield model
    finally:
        _take_out(base, model)


@contextmanager
def saved_adapters(base: Base, folder: Path, placement: Placement) -> Iterator[Any]:
    """Wrap the base in adapters read from a folder, checked against the placement."""
    with _without_advice():
        model = PeftModel.from_pretrained(base.model, str(folder))
    try:
        model.requires_grad_(False)
        _verify_loaded(model, placement, base.head)
        model.eval()
        yield model
    finally:
        _take_out(base, model)


def initialise(peft_model: Any, *, seed: int) -> None:
    """Give every adapter the initial values of its (seed, site); what is not drawn is zero."""
    with torch.no_grad():
        for path, layer in wrapped_layers(peft_model).items():
            if ADAPTER_NAME in layer.lora_embedding_A:
                _initialise_embedding(layer, seed, path)
            else:
                _initialise_linear(layer, seed, path)


def save_adapters(
    peft_model: Any, placement: Placement, folder: Path, *, base_name: str, revision: str | None
) -> None:
    """Write the adapters of a PEFT model in PEFT's format, with exact paths, in one step."""
    with quiet():
        state = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    used = peft_model.peft_config[ADAPTER_NAME]
    write_adapters(
        state,
        placement,
        folder,
        dropout=used.lora_dropout,
        base_name=base_name,
        revision=revision,
        whole=used.modules_to_save,
    )


def write_adapters(
    state: Mapping[str, torch.Tensor],
    placement: Placement,
    folder: Path,
    *,
    dropout: float,
    base_name: str,
    revision: str | None,
    whole: Sequence[str] | None = None,
) -> None:
    """Write adapters in PEFT's format, with exact paths, in one step.

    PEFT's own writer shortens long target lists to suffixes, which may hit more sites when
    they are read again; so the configuration is written from the placement.

    Args:
        state: the tensors by PEFT's names.
        placement: what they are.
        folder: where they go; what was there is replaced.
        dropout: on the adapters' input.
        base_name: the base, as the study names it.
        revision: of the base on the hub.
        whole: paths of modules that were trained whole (PEFT's `modules_to_save`).
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
    config = adapter_config(placement, dropout=dropout, base_model=base_name, revision=revision)
    config |= {"modules_to_save": None if whole is None else list(whole)}
    (partial / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    sync_folder(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync(folder.parent)


def require_equal_logits(in_memory: torch.Tensor, reloaded: torch.Tensor) -> None:
    """Raise unless adapters read from disk compute what they computed before saving.

    Args:
        in_memory: logits of any shape, before saving.
        reloaded: logits of the same rows, after reloading.

    Raises:
        VerificationError: they differ; bit for bit on a CPU, relative 1e-5 on a GPU.
    """
    if torch.equal(in_memory, reloaded):
        return
    largest = float((in_memory - reloaded).abs().max())
    allowed = _GPU_TOLERANCE * float(in_memory.abs().max())
    if in_memory.device.type == "cpu" or not largest <= allowed:
        raise VerificationError(
            "the saved adapters do not compute what the trained ones did: "
            f"logits differ by {largest:.3g}"
        )


def require_close_logits(packed: torch.Tensor, by_peft: torch.Tensor) -> None:
    """Raise unless PEFT computes with saved adapters what the packed engine did with them.

    Args:
        packed: logits by the packed engine, any shape.
        by_peft: logits of the same predictions by PEFT.

    Raises:
        VerificationError: they differ by more than sums taken in another order do.
    """
    largest = float((packed.float() - by_peft.float()).abs().max())
    allowed = _ENGINE_TOLERANCE[packed.dtype] * float(by_peft.abs().max())
    if not largest <= allowed:
        raise VerificationError(
            "PEFT does not compute with the saved adapters what the packed engine did: "
            f"logits differ by {largest:.3g}"
        )


def _initialise_linear(layer: Any, seed: int, path: str) -> None:
    a, b = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
    drawn = randomness.initial_a(seed, path, rank=a.shape[0], d_in=a.shape[1])
    a.copy_(torch.from_numpy(drawn))
    b.zero_()


def _initialise_embedding(layer: Any, seed: int, path: str) -> None:
    a, b = layer.lora_embedding_A[ADAPTER_NAME], layer.lora_embedding_B[ADAPTER_NAME]
    drawn = randomness.initial_embedding_b(seed, path, rank=b.shape[1], d_out=b.shape[0])
    a.zero_()
    b.copy_(torch.from_numpy(drawn))


def _verify_loaded(model: Any, placement: Placement, head: Sequence[str]) -> None:
    """Compare loaded adapters with the placement; for the count they are trainable a moment."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or f"{_TRAINED_HEAD}." in name)
    verify(model, placement, whole=head)
    model.requires_grad_(False)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence PEFT's advice about what it wraps: lints say it before, `verify` checks it after."""
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")
        yield


def _take_out(base: Base, model: Any) -> None:
    restored = model.unload()
    restored.requires_grad_(False)
    if restored is not base.model:
        raise VerificationError("PEFT returned another model than the base it was given")
