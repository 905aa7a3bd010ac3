"""Studies on a GPU side by side: ``python benchmarks/gpu.py [--quick] [--only PART ...]``.

Needs a CUDA device, and ends with status 2 where there is none. Three parts by precision (fp32,
tf32, bf16): nine trials held against the peer, and 48 trials of ours against the device's own
peak of matrix products. A fourth (llama): one trial of a Llama with 1B parameters in bf16, held
against the fastest of what Trainer has in stock: as it is, under autocast, compiled. The seconds
of the peer's nine trials are those of its first seed, one trial for each placement, times three:
seeds do not change how long a trial takes. ``--peer-seeds 3`` runs them all.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cost_of_a_study import planned_flops
from machine import described, peak_flops
from materials import LLAMA_1B, Given, MaterialsError, given
from processes import SideError
from side_by_side import (
    RESULTS,
    Pair,
    add_sides,
    losses_table,
    memory_of,
    pairs_table,
    parser_of,
    positive,
    ratio_line,
    run_pairs,
    side_figures,
    told,
)
from sides import Side, run_ours
from work import Materials, Work, prepare

NINE = Work(
    placements={"full": "all", "attention": "attention", "feed_forward": "feed_forward"},
    seeds=3,
    train_rows=1024,
    epochs=3,
    micro_batch=4,
    device="cuda",
    peer_seeds=1,
)
LLAMA = Work(
    shape=LLAMA_1B,
    placements={"full": "all"},
    train_rows=1024,
    micro_batch=4,
    dtype="bf16",
    stored="bf16",
    device="cuda",
)
STOCK: Mapping[str, Mapping[str, bool]] = {
    "as it is": {},
    "autocast": {"autocast": True},
    "compiled": {"compile": True},
}
# Torch's own switch, which holds for both sides alike.
PRECISIONS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {},
    "tf32": {"environment": {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}},
    "bf16": {"dtype": "bf16"},
}
LEAST = {"fp32": 6.0, "bf16": 20.0, "llama": 0.9}
LEAST_SHARE = 0.35
"""Of the bf16 peak, at 48 trials."""
PARTS = (*PRECISIONS, "llama")
_SEEDS_OF_48 = 16
_GEMM_SIZE = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Many:
    """48 trials of ours: what they took, their operations, and the device's peak a second."""

    work: Work
    side: Side
    flops: float
    peak: float

    @property
    def share(self) -> float:
        """Operations a second of training, as a share of the peak."""
        return self.flops / self.side.training_seconds / self.peak


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What a part found: pairs by the peer's setting, the fastest setting, and many trials."""

    name: str
    work: Work
    pairs: Mapping[str, Sequence[Pair]]
    many: Many | None = None

    @property
    def fastest(self) -> str:
        """The peer's setting with the fewest seconds."""

        def seconds(setting: str) -> float:
            return statistics.median(pair.peer.seconds for pair in self.pairs[setting])

        return min(self.pairs, key=seconds)

    @property
    def ratios(self) -> list[float]:
        """Ratios against the peer's fastest setting."""
        return [pair.ratio for pair in self.pairs[self.fastest]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """How parts are run."""

    num_pairs: int
    threads: int
    given: Given | None


def precision_part(name: str, work: Work, runs: Runs) -> Part:
    """Return what a precision comes to: nine trials side by side, 48 of ours."""
    work = replace(work, **PRECISIONS[name])
    with tempfile.TemporaryDirectory(prefix="loratlas-") as folder:
        materials = prepare(work, Path(folder), runs.given)
        pairs = list(run_pairs(work, materials, runs.num_pairs, runs.threads))
        many = many_trials(name, replace(work, seeds=_SEEDS_OF_48, epochs=1), materials, runs)
    return Part(name=name, work=work, pairs={"as it is": pairs}, many=many)


def many_trials(name: str, work: Work, materials: Materials, runs: Runs) -> Many:
    """Return what 48 trials of ours take."""
    with tempfile.TemporaryDirectory(prefix="loratlas-") as folder:
        side = run_ours(work, materials, Path(folder), runs.threads)
        flops = planned_flops(work, materials, Path(folder))
    peak = peak_flops("cuda", name, threads=runs.threads, size=_GEMM_SIZE)
    return Many(work=work, side=side, flops=flops, peak=peak)


def llama_part(work: Work, runs: Runs) -> Part:
    """Return one trial held against each of Trainer's settings."""
    with tempfile.TemporaryDirectory(prefix="loratlas-") as folder:
        materials = prepare(work, Path(folder), runs.given)
        pairs = {
            setting: list(
                run_pairs(replace(work, **changes), materials, runs.num_pairs, runs.threads)
            )
            for setting, changes in STOCK.items()
        }
    return Part(name="llama", work=work, pairs=pairs)


def page(parts: Sequence[Part], *, drawn: bool) -> str:
    """Return the page of results as Markdown."""
    texts = [
        "# Studies on a GPU",
        "`python benchmarks/gpu.py --write`. " + described("cuda"),
        "Seconds are those of whole processes, loading and scoring included; memory is the "
        "device's at its fullest, of the peer's largest process. Where the peer ran fewer seeds "
        "than there are, its seconds are those of the seeds that it ran, times as many.",
    ]
    for part in parts:
        texts += part_page(part, drawn=drawn)
    return "\n\n".join(texts) + "\n"


def part_page(part: Part, *, drawn: bool) -> list[str]:
    """Return the paragraphs of a part."""
    wanted = f"; wanted: at least {LEAST[part.name]:g}" if part.name in LEAST else ""
    texts = [f"## {part.name}", told(part.work, drawn)]
    for setting, pairs in part.pairs.items():
        texts += [f"PEFT + Trainer {setting}:", "\n".join(pairs_table(pairs))]
    texts.append(f"**{ratio_line(part.ratios)}**, Trainer {part.fastest}{wanted}.")
    texts.append("\n".join(losses_table(part.pairs[part.fastest][0])))
    if part.many is not None:
        texts.append(many_page(part.many, part.name))
    return texts


def many_page(many: Many, precision: str) -> str:
    """Return the paragraph on 48 trials."""
    wanted = f"; wanted: at least {LEAST_SHARE:.0%}" if precision == "bf16" else ""
    return (
        f"{len(many.work.trials)} trials of one epoch: {many.side.seconds:.1f} s, of which "
        f"{many.side.training_seconds:.1f} s are training; {many.flops / 1e15:.2f} PFLOP as "
        f"planned, {many.share:.0%} of the {many.peak / 1e12:.0f} TFLOP/s that a product of two "
        f"{_GEMM_SIZE} x {_GEMM_SIZE} matrices reaches{wanted}; {memory_of(many.side)} GiB."
    )


def figures(parts: Sequence[Part]) -> dict[str, Any]:
    """Return what was measured, for ``--json``."""
    return {
        "benchmark": "gpu",
        "machine": described("cuda"),
        "parts": {
            part.name: {
                "ratio": statistics.median(part.ratios),
                "ratios": part.ratios,
                "trainer": part.fastest,
                "pairs": {
                    setting: [
                        {"loratlas": side_figures(p.ours), "peer": side_figures(p.peer)}
                        for p in pairs
                    ]
                    for setting, pairs in part.pairs.items()
                },
                "many": None
                if part.many is None
                else {
                    "share": part.many.share,
                    "flops": part.many.flops,
                    "peak_flops": part.many.peak,
                    "loratlas": side_figures(part.many.side),
                },
            }
            for part in parts
        },
    }


def smaller(work: Work) -> Work:
    """Return the quick instance of a work."""
    layers = "n_layer" if "n_layer" in work.shape else "num_hidden_layers"
    return replace(work, shape={**work.shape, layers: 4}, train_rows=64, epochs=1)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts, print their tables, and end with the line of the last part's ratio."""
    parser = parser_of(__doc__)
    add_sides(parser, pairs=1, quick_pairs=1)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument("--peer-seeds", type=positive, default=1, help="that the peer runs; 1")
    options = parser.parse_args(argv)
    _require_cuda()
    nine = replace(NINE, peer_seeds=options.peer_seeds)
    works = {**dict.fromkeys(PRECISIONS, nine), "llama": LLAMA}
    if options.quick:
        works = {name: smaller(work) for name, work in works.items()}
    try:
        files = given(options.tokenizer, options.rows)
        runs = Runs(num_pairs=options.pairs or 1, threads=options.threads, given=files)
        parts = [_part(name, works[name], runs) for name in options.only]
    except (MaterialsError, SideError) as error:
        sys.exit(str(error))
    text = page(parts, drawn=files is None)
    print(text)
    if options.write:
        (RESULTS / "gpu.md").write_text(text, encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps(figures(parts), indent=2) + "\n", encoding="utf-8")
    print(ratio_line(parts[-1].ratios))


def _part(name: str, work: Work, runs: Runs) -> Part:
    if name != "llama":
        return precision_part(name, work, runs)
    # GPT-2's tokenizer is not Llama's: rows of this part are always drawn.
    return llama_part(work, replace(runs, given=None))


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        print("gpu.py needs a CUDA device, and this machine has none", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
