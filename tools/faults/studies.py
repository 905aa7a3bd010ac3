"""Which studies are disturbed? Small ones, on the bundled model, with every kind of trial."""

MIXED = """\
name: faults
model: demo:gpt2
data: {source: demo:facts, format: prompt_completion, train: 48, validation: 8, test: 16, \
max_length: 64}
placements:
  full: all
  upper: attention @ layers(50%..)
  scored: {scorer: gradient, rows: 8}
  moving: {policy: saliency, interval: 3}
baseline: full
lora: {rank: 2, alpha: 4}
training: {steps: 24, batch: 4, learning_rate: [5e-3, 2e-2], warmup: 2}
seeds: 2
sweep_seeds: 1
measures: [loss]
"""
"""A rule, a part of one, a placement that scores choose, and one that moves; two rates."""

REFERENCE = """\
name: faults
model: demo:gpt2
data: {source: demo:facts, format: prompt_completion, train: 48, validation: 8, test: 16, \
max_length: 64}
placements:
  full: all
  scored: {scorer: gradient, rows: 8}
baseline: full
lora: {rank: 2, alpha: 4, dropout: 0.1}
training: {steps: 12, batch: 4, learning_rate: [5e-3, 2e-2], warmup: 2}
engine: reference
seeds: 2
sweep_seeds: 1
measures: [loss]
"""
"""Trials that Trainer trains, one after another, with dropout."""

SMALL = """\
name: faults
model: demo:gpt2
data: {source: demo:facts, format: prompt_completion, train: 48, validation: 4, test: 8, \
max_length: 64}
placements:
  full: all
  moving: {policy: saliency, interval: 3}
baseline: full
lora: {rank: 2, alpha: 4}
training: {steps: 60, batch: 4, learning_rate: 5e-3, warmup: 2}
seeds: 2
measures: [loss]
"""
"""One pack of four trials: for what is staged at a certain step."""

BRIEF = SMALL.replace("steps: 60", "steps: 20")
"""The same for what must not take long."""

LOCAL = """\
name: faults
model: model
data: {source: rows.jsonl, format: prompt_completion, train: 40, validation: 8, test: 12, \
max_length: 64}
placements:
  full: all
  upper: all @ layers(50%..)
baseline: full
lora: {rank: 2, alpha: 4}
training: {steps: 6, batch: 4, learning_rate: 5e-3}
seeds: 2
measures: [loss]
"""
"""Model and rows are files beside the study, so that they can be changed."""

DIVERGING = (
    LOCAL.replace("model: model", "model: demo:gpt2")
    .replace("source: rows.jsonl", "source: demo:facts")
    .replace("alpha: 4", "alpha: 1e12")
    .replace("learning_rate: 5e-3", "learning_rate: [1e-14, 1000]")
)
"""The scale is so large that one of the rates overflows."""

TRAINER = REFERENCE.replace("dropout: 0.1", "dropout: 0.0")
"""The same without dropout, so that the size of a micro-batch changes nothing but the sums."""

STUDIES = {
    "mixed": MIXED,
    "reference": REFERENCE,
    "trainer": TRAINER,
    "small": SMALL,
    "brief": BRIEF,
    "local": LOCAL,
    "diverging": DIVERGING,
}
