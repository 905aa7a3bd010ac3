"""What a study says about its data: source, format, splits, what is scored."""

from dataclasses import dataclass, field
from typing import Literal, get_args

DataFormat = Literal["alpaca", "prompt_completion", "text", "messages", "gsm8k", "classification"]
Task = Literal["causal", "masked", "seq2seq", "classification"]
"""What a model predicts: the next token, hidden tokens, an answer to its encoder, a class."""
MASK_SHARE = 0.15
"""What BERT was trained with (Devlin et al., 2019, section 3.1)."""
LossOn = Literal["response", "completion", "assistant", "everything"]
DATA_FORMATS: tuple[str, ...] = get_args(DataFormat)
LOSS_ON: tuple[str, ...] = get_args(LossOn)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec:
    """Which rows a study trains on and is judged by.

    Exactly one of `source` and `files` is given.
    """

    source: str | None = None
    """Hub name, one local file (json, jsonl, csv, parquet), or a bundled task (demo:facts)."""
    files: dict[str, str] = field(default_factory=dict)
    """Local files by split: train, and any of validation and test."""
    config: str | None = None
    """Configuration of a hub data set (`main` for gsm8k)."""
    revision: str | None = None
    """Revision of a hub data set."""
    format: DataFormat
    """How a row is read."""
    train: int | None = None
    """Rows for training; None takes what the other splits leave."""
    validation: int | None = None
    """Rows that choose the learning rate; None takes the source's own split, or none."""
    test: int | None = None
    """Rows that the answer is read from; None takes the source's own split, and needs one."""
    loss_on: LossOn = "response"
    """Which tokens are trained on and scored; the first three name the answer of a row."""
    mask_share: float = MASK_SHARE
    """Share of those tokens that is masked, for masked language models."""
    max_length: int = 512
    """Tokens of a row, special tokens included; what is longer is truncated and counted."""
    split_seed: int = 0
    """Seed of the draw of splits; it has nothing to do with the seeds of trials."""
