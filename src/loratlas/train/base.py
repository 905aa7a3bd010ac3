"""How the frozen base model and its tokenizer are loaded, and what identifies them."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from loratlas.bundled import demo_model_folder
from loratlas.data.collate import Collator
from loratlas.data.spec import DataFormat, Task
from loratlas.errors import ModelError
from loratlas.train.dropout import set_dropout
from loratlas.train.head import head_of, initialise_head
from loratlas.train.objective import auto_class, task_of
from loratlas.train.trial import Dtype, ModelRef

# The untuned base is scored with this head; each trial draws its own.
_HEAD_SEED = 0
_TORCH_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Base:
    """A frozen base model, ready to carry adapters.

    Attributes:
        ref: what the study asked for.
        model: the transformers model, every parameter frozen, on `device`.
        tokenizer: its tokenizer.
        device: where the model lies.
        digest: SHA-256 over configuration and weights as loaded.
        num_parameters: parameters of the model; tied tensors count once.
        task: what it predicts.
        head: paths of the modules of a new classification head, trained whole in every trial.
    """

    ref: ModelRef
    model: Any
    tokenizer: Any
    device: torch.device
    digest: str
    num_parameters: int
    task: Task = "causal"
    head: tuple[str, ...] = ()

    @property
    def collator(self) -> Collator:
        """What makes this model's batches."""
        start = getattr(self.model.config, "decoder_start_token_id", None)
        return Collator(task=self.task, pad_id=self.pad_id, start_id=int(start or 0))

    @property
    def pad_id(self) -> int:
        """The token that fills short rows; attention and loss never see it."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def pick_device(name: str) -> torch.device:
    """Return the device a study asks for; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ModelError: the device is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(device for device, found in there.items() if found))
    if not there.get(name, False):
        found = ", ".join(device for device, is_there in there.items() if is_there)
        raise ModelError(f"device {name}: not available here; there is: {found}")
    return torch.device(name)


def load_tokenizer(ref: ModelRef) -> Any:
    """Load the tokenizer of a base model.

    Raises:
        ModelError: it cannot be found or read.
    """
    with _readable(ref, "tokenizer"), quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(
            _location(ref), revision=ref.revision, trust_remote_code=ref.trust_remote_code
        )
        # Without its files transformers makes an empty tokenizer, which reads every text as "".
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ModelError(f"{ref.name}: no tokenizer comes with it (tokenizer.json is missing)")
    return tokenizer


def load_base(
    ref: ModelRef, *, dtype: Dtype, base_dropout: float | None, device: torch.device
) -> Base:
    """Load a base model, freeze it, and set its dropout.

    A classification head that is not among its weights is drawn, the same one each time.

    Raises:
        ModelError: it cannot be found or read, is no language model, or its weights are not
            safetensors or do not fit.
    """
    tokenizer = load_tokenizer(ref)
    with _readable(ref, "model"), quiet():
        config = _config(ref)
        if base_dropout is not None:
            set_dropout(config, base_dropout)
        task = task_of(config, ref.name, None if ref.num_labels is None else "classification")
        _require_one_way(ref, config, task)
        if ref.num_labels is not None:
            _set_labels(config, ref.num_labels, tokenizer)
        loaded: Any = auto_class(task).from_pretrained(
            _location(ref),
            config=config,
            revision=ref.revision,
            trust_remote_code=ref.trust_remote_code,
            dtype=_TORCH_DTYPES[dtype],
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # listed, and refused below with the shapes
            output_loading_info=True,
        )
    model, found = loaded
    _require_bare(ref, model)
    head = head_of(model, found["missing_keys"]) if task == "classification" else ()
    _require_whole(ref, found, head)
    initialise_head(model, head, seed=_HEAD_SEED)
    model.requires_grad_(False)
    model.config.use_cache = False
    digest = weights_digest(model)
    return Base(
        ref=ref,
        model=model.to(device),
        tokenizer=tokenizer,
        device=device,
        digest=digest,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        task=task,
        head=head,
    )


def read_task(ref: ModelRef, data_format: DataFormat) -> Task:
    """Return what a base predicts in a study, from its configuration.

    Raises:
        ModelError: the configuration cannot be found or read, or is of no language model.
    """
    with _readable(ref, "configuration"), quiet():
        return task_of(_config(ref), ref.name, data_format)


def _config(ref: ModelRef) -> Any:
    return AutoConfig.from_pretrained(
        _location(ref), revision=ref.revision, trust_remote_code=ref.trust_remote_code
    )


def _set_labels(config: Any, num_labels: int, tokenizer: Any) -> None:
    config.num_labels = num_labels
    config.problem_type = "single_label_classification"
    if getattr(config, "pad_token_id", None) is None:
        # Decoders classify at the last token that is not padding, and know it by this id.
        pad = tokenizer.pad_token_id
        config.pad_token_id = tokenizer.eos_token_id if pad is None else pad


def weights_digest(model: Any) -> str:
    """Return the SHA-256 over a model's class, configuration, and every tensor it holds."""
    config = model.config.to_dict()
    # Where a model came from and what wrote it do not change what it computes.
    for key in ("_name_or_path", "transformers_version", "_commit_hash"):
        config.pop(key, None)
    digest = hashlib.sha256(type(model).__name__.encode())
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def max_positions(model: Any) -> int | None:
    """Return how many tokens the model's learned positions reach, or None without a limit."""
    value = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(value, int) or value <= 0:
        return None
    return value - first_position(model)


def first_position(model: Any) -> int:
    """Return the number of a row's first position.

    RoBERTa and its like count from behind the padding token's id.
    """
    offsets = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return max(offsets, default=0)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress bars, advice and deprecations out of the terminal a while.

    What they deprecate among themselves is nothing that a person at the terminal can mend.
    """
    logging: Any = transformers.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _location(ref: ModelRef) -> str:
    if ref.name.startswith("demo:"):
        return str(demo_model_folder(ref.name))
    if Path(ref.name).is_file():
        raise ModelError(
            f"{ref.name}: is a file; weights and tokenizer are read from the folder that holds it"
        )
    return ref.name


def _require_one_way(ref: ModelRef, config: Any, task: Task) -> None:
    """Refuse to predict next tokens with a model that sees them."""
    both = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if task == "causal" and both and not getattr(config, "is_decoder", False):
        raise ModelError(
            f"{ref.name}: {config.architectures[0]} predicts next tokens, but its configuration "
            "lets it attend in both directions (is_decoder is not set)"
        )


def _require_bare(ref: ModelRef, model: Any) -> None:
    """Refuse a base that transformers has put adapters into, because some lay beside it."""
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{ref.name}: adapters lie beside the model, and transformers loads them with it; "
            "give a base without them"
        )


def _require_whole(ref: ModelRef, found: Mapping[str, Any], head: Sequence[str]) -> None:
    """Refuse weights that leave tensors of the model out: they would be random, unseen.

    A classification head may be new, and of another size than the one in the file.
    """

    def is_new(name: str) -> bool:
        return any(name.startswith(f"{path}.") for path in head)

    wrong = sorted(each for each in found["mismatched_keys"] if not is_new(each[0]))
    if wrong:
        name, held, needed = wrong[0]
        raise ModelError(
            f"{ref.name}: its weights do not fit its config.json: {len(wrong)} tensors have "
            f"another shape, first {name}: {tuple(held)} in the file, {tuple(needed)} in the model"
        )
    missing = sorted(name for name in found["missing_keys"] if not is_new(name))
    if missing:
        raise ModelError(
            f"{ref.name}: its weights do not fit its config.json: {len(missing)} tensors are "
            f"missing, first {missing[0]}"
        )


@contextmanager
def _readable(ref: ModelRef, what: str) -> Iterator[None]:
    """Turn the many errors of a failed load into one that says what to do."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        if isinstance(error, KeyError):
            first = f"{first} is missing in its files"
        if not Path(_location(ref)).exists() and "/" in ref.name:
            first += " (a hub model needs the network, or an earlier download)"
        raise ModelError(f"{ref.name}: the {what} cannot be loaded: {first}") from error
