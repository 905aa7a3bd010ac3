"""Which definitions of perplexity are in use, what each does, and where each was met."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from loratlas.measure.audit import definitions, tallies
from loratlas.measure.audit.seen import NotHere, Seen
from loratlas.measure.audit.tallies import LN_2, Tally

CORPUS = "corpus"
_TRANSFORMERS = "https://github.com/huggingface/transformers/"

Average = Callable[[Tally], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One definition of perplexity.

    Attributes:
        name: stable, for JSON.
        what: what it does, in one sentence.
        source: where it was met, empty where nobody had to report it.
        tally: what it sums and counts; raises `NotHere` where it does not apply.
        average: how a tally becomes ln of the perplexity.
    """

    name: str
    what: str
    source: str = ""
    tally: Callable[[Seen], Tally]
    average: Average = tallies.corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a variant says of one model.

    Attributes:
        variant: the variant.
        tally: what it summed and counted, None where it does not apply.
        reason: why it does not apply, None where it does.
    """

    variant: Variant
    tally: Tally | None = None
    reason: str | None = None

    @property
    def log_perplexity(self) -> float | None:
        """Ln of the perplexity that the variant reports, None where it does not apply."""
        return None if self.tally is None else self.variant.average(self.tally)


def read(seen: Seen) -> dict[str, Reading]:
    """Return what every variant says of a model, the corpus loss first."""
    return {variant.name: _read(variant, seen) for variant in catalogue(seen)}


def catalogue(seen: Seen) -> tuple[Variant, ...]:
    """Return the variants; the batch of the setting is among those of the batch means."""
    return (
        Variant(
            name=CORPUS,
            what="Σ nll / Σ scored tokens in fp32, labels shifted once: this project's definition.",
            tally=definitions.scored,
        ),
        *_ALIGNMENT,
        *_batched(seen.setting.batch, seen.setting.accumulation),
        *_TOKENS,
        *_AVERAGES,
        *_INPUTS,
        *_PRECISION,
        *_UNITS,
    )


def batch_sizes(batch: int) -> list[int]:
    """Return the batch sizes whose means are taken: usual ones, and the one that is asked for."""
    return sorted({1, 2, 8, batch})


def _read(variant: Variant, seen: Seen) -> Reading:
    try:
        return Reading(variant=variant, tally=variant.tally(seen))
    except NotHere as reason:
        return Reading(variant=variant, reason=str(reason))


_ALIGNMENT = (
    Variant(
        name="labels_not_shifted",
        what="Scores each token by the logits at its own place: how well the model predicts the "
        "token it has just been given.",
        source="the founding study",
        tally=definitions.unshifted,
    ),
    Variant(
        name="labels_not_shifted_eos_masked",
        what="Labels not shifted, and every end of text left out as pad = EOS has it: the founding "
        "study's metric function behind its collator.",
        source="the founding study",
        tally=definitions.unshifted_without_ends,
    ),
    Variant(
        name="first_label_counted",
        what="Divides by the labels as they stand before the shift, one more than is predicted in "
        "each row whose first token is labelled.",
        source=_TRANSFORMERS + "pull/46204",
        tally=definitions.first_label_counted,
    ),
)


def _batched(batch: int, accumulation: int) -> tuple[Variant, ...]:
    means = (
        Variant(
            name=f"batch_means_{size}",
            what=f"Mean of the mean losses of batches of {size}, as Trainer evaluates: a short "
            "row's tokens weigh more.",
            source=_TRANSFORMERS + "issues/39241",
            tally=definitions.scored,
            average=partial(tallies.batch_means, size=size),
        )
        for size in batch_sizes(batch)
    )
    return (
        *means,
        Variant(
            name="accumulated_means",
            what=f"Mean over steps of the mean of {accumulation} micro-batches' means, batches of "
            f"{batch}.",
            source=_TRANSFORMERS + "issues/34191",
            tally=definitions.scored,
            average=partial(tallies.accumulated_means, size=batch, accumulation=accumulation),
        ),
        Variant(
            name="padding_scored",
            what="Scores the padding, too, each row padded to the longest of its batch of "
            f"{batch}.",
            tally=definitions.with_padding,
        ),
    )


_TOKENS = (
    Variant(
        name="eos_masked",
        what="Leaves out every end of text, as a collator does that masks the pad token where "
        "pad = EOS.",
        source=_TRANSFORMERS + "issues/23530",
        tally=definitions.ends_masked,
    ),
    Variant(
        name="eos_scored",
        what="Scores every end of text, those that the study leaves out, too.",
        source=_TRANSFORMERS + "issues/23530",
        tally=definitions.ends_scored,
    ),
    Variant(
        name="prompt_scored",
        what="Scores the prompt, too: every token of a row but its first.",
        tally=definitions.prompt_scored,
    ),
    Variant(
        name="prompt_not_scored",
        what="Scores the answer alone.",
        tally=definitions.prompt_not_scored,
    ),
)

_AVERAGES = (
    Variant(
        name="mean_of_perplexities",
        what="Mean of each text's own perplexity instead of the perplexity of the mean loss.",
        source="https://github.com/pytorch/torcheval/issues/154",
        tally=definitions.scored,
        average=tallies.mean_perplexity,
    ),
    Variant(
        name="strided_windows",
        what="Long rows in windows at a stride of half a window, every target counted once: "
        "right, with less context than a whole row gives.",
        tally=definitions.strided,
    ),
    Variant(
        name="strided_window_means",
        what="The same windows, each window's mean weighing the same however many targets it has.",
        source=_TRANSFORMERS + "issues/34138",
        tally=definitions.strided,
        average=partial(tallies.batch_means, size=1),
    ),
    Variant(
        name="strided_off_by_one",
        what="The same windows, weighed by the labels that they advance, one more than the first "
        "window predicts.",
        source=_TRANSFORMERS + "issues/30975",
        tally=definitions.strided_off_by_one,
    ),
)

_INPUTS = (
    Variant(
        name="bos_missing",
        what="Drops the beginning of text that the tokenizer puts before a row.",
        source="https://github.com/EleutherAI/lm-evaluation-harness/issues/1586",
        tally=definitions.bos_missing,
    ),
    Variant(
        name="bos_doubled",
        what="Puts a second beginning of text before the row's own.",
        tally=definitions.bos_doubled,
    ),
    Variant(
        name="bos_added",
        what="Puts the tokenizer's beginning of text before rows that have none.",
        tally=definitions.bos_added,
    ),
    Variant(
        name="dropout_on",
        what="Leaves dropout on, in the base and on the adapters; one seeded draw of the masks.",
        tally=definitions.with_dropout,
    ),
)

_PRECISION = (
    Variant(
        name="bf16_logits",
        what="Rounds the logits to bfloat16 before an fp32 log-softmax.",
        tally=definitions.rounded,
    ),
    Variant(
        name="bf16_log_softmax",
        what="Rounds the logits to bfloat16 and computes the log-softmax in it.",
        tally=definitions.rounded_softmax,
    ),
)

_UNITS = (
    Variant(
        name="base_2_loss",
        what="exp of a loss in bits: a base-2 logarithm undone with e.",
        tally=definitions.scored,
        average=lambda tally: tally.mean / LN_2,
    ),
    Variant(
        name="base_2_power",
        what="2 to the power of a loss in nats: a natural logarithm undone with 2.",
        tally=definitions.scored,
        average=lambda tally: tally.mean * LN_2,
    ),
    Variant(
        name="per_word",
        what="Σ nll divided by the words of the scored text, split at blanks.",
        tally=definitions.per_word,
    ),
    Variant(
        name="per_byte",
        what="Σ nll divided by the bytes of the scored text.",
        tally=definitions.per_byte,
    ),
)
