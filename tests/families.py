"""Small random models of every kind that is trained, on disk, each with a tokenizer of its own."""

import json
from pathlib import Path

_SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
_CLS = {"cls_token": "<cls>", "sep_token": "<sep>", "mask_token": "<mask>"}
_VOCABULARY = 400


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=32, n_layer=3, n_head=4, n_positions=64, vocab_size=_VOCABULARY,
        bos_token_id=2, eos_token_id=2,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def _grouped(name: str, **more):
    """A model with fewer key-value heads than query heads."""
    import transformers

    config = getattr(transformers, f"{name}Config")(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=_VOCABULARY, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=2, eos_token_id=2, **more,
    )  # fmt: skip
    return getattr(transformers, f"{name}ForCausalLM")(config)


def llama():
    return _grouped("Llama")


def qwen3():
    return _grouped("Qwen3")


def mistral():
    return _grouped("Mistral", sliding_window=None)


def mixtral():
    return _grouped("Mixtral", num_local_experts=4, num_experts_per_tok=2)


def qwen3_moe():
    return _grouped("Qwen3Moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)


def bert():
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        vocab_size=_VOCABULARY, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    return BertForMaskedLM(config)


def roberta():
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        vocab_size=_VOCABULARY, max_position_embeddings=66, pad_token_id=0, type_vocab_size=1,
    )  # fmt: skip
    return RobertaForMaskedLM(config)


def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        d_model=32, d_kv=8, num_heads=4, d_ff=64, num_layers=3, num_decoder_layers=3,
        vocab_size=_VOCABULARY, pad_token_id=0, decoder_start_token_id=0, eos_token_id=2,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def bart():
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        d_model=32, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48,
        vocab_size=_VOCABULARY, max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


CAUSAL = {each.__name__: each for each in (gpt2, llama, qwen3, mistral, mixtral, qwen3_moe)}
MASKED = {each.__name__: each for each in (bert, roberta)}
SEQ2SEQ = {each.__name__: each for each in (t5, bart)}
EVERY = {**CAUSAL, **MASKED, **SEQ2SEQ}


def prompt_rows(count: int) -> str:
    """Return JSON Lines of prompts and completions, no two alike."""
    towns = ("Oslo", "Rome", "Lima", "Cairo", "Delhi")
    rows = (
        {"prompt": f"Where is house {n}?", "completion": f" In {towns[n % 5]}, number {n * 7}."}
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(family: str, folder: Path) -> Path:
    """Write a model of a family with random weights, and a tokenizer."""
    import torch

    torch.manual_seed(0)
    EVERY[family]().save_pretrained(folder)
    _tokenizer(family).save_pretrained(folder)
    return folder


def _tokenizer(family: str):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = _SPECIAL | (_CLS if family in MASKED else {})
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<pad>", "<unk>", "</s>", "<cls>", "<sep>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([prompt_rows(50)], trainer)
    if family in MASKED:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<cls> $A <sep>",
            pair="<cls> $A <sep> $B:1 <sep>:1",
            special_tokens=[("<cls>", 3), ("<sep>", 4)],
        )
    elif family in SEQ2SEQ:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"]
        if family == "bert"
        else ["input_ids", "attention_mask"],
        **special,
    )  # fmt: skip
