"""A byte-level BPE tokenizer, trained here in a blink, and files written for one test."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Question: what is the colour of the sky?\nAnswer: the sky is blue.",
    "### Instruction:\nWrite a line.\n\n### Response:\nHere is a line.",
    "Numbers such as 12, 29 and 300 stand in a text with words, commas and dots.",
] * 3

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    def make(*, bos: bool = False, trim_offsets: bool = False, **options: Any):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>", "<s>", "<|user|>", "<|assistant|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(CORPUS, trainer)
        if bos:
            tokenizer.post_processor = processors.Sequence(
                [
                    processors.ByteLevel(trim_offsets=trim_offsets),
                    processors.TemplateProcessing(
                        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
                    ),
                ]
            )
        special = {"eos_token": "<|endoftext|>", **({"bos_token": "<s>"} if bos else {})}
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(special | options))

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: MakeTokenizer) -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[str, Iterable[Any]], str]:
    """Write rows as JSON Lines into tmp_path and return the file's name."""

    def write(name: str, rows: Iterable[Any]) -> str:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(lines, encoding="utf-8")
        return name

    return write
