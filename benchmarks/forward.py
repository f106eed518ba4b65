"""The forward pass alone: milliseconds per item on tensors in memory, by engine and precision.

Eager float32 torch in the plain layout, what `avfeat` runs by default, and what else the device
has. ``python -m benchmarks.forward`` runs it alone; with ``--device cuda`` on a GPU, in every
precision of it, from uint8 on the host to rows on the host.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch

from avfeat.extract import backbones
from avfeat.extract.backbones.extractor import Extractor
from avfeat.extract.engines import choose
from avfeat.extract.weights.random import smooth_items
from benchmarks.figure import Figure, plain
from benchmarks.limits import gemm_peak
from benchmarks.setting import TINY, Setting, alone, alternate, counted_runs, medians

NAMES = ("resnet152", "vgg19_bn", "senet154", "polynet", "r2plus1d_18")


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure each network in every precision; ratios are to eager float32 torch."""
    peaks = {precision: gemm_peak(setting, precision) for precision in setting.precisions}
    repeats = setting.repeats(5)
    for name in TINY[:1] if setting.quick else NAMES:
        contenders = _extractors(name, setting)
        spec = backbones.get(name).spec
        size = spec.batch_size(setting.device.partition(":")[0])
        items = smooth_items(spec.input, size, torch.Generator().manual_seed(0))
        for run in contenders.values():
            run(items)  # warm
        seconds = medians(
            alternate(
                {label: partial(_timed, run, items) for label, run in contenders.items()},
                repeats=repeats,
            )
        )
        eager = seconds["eager fp32"]
        for label, spent in seconds.items():
            peak = peaks[label.split()[1]]
            least = peak.seconds(spec.gmacs_per_item)
            yield plain(
                f"forward {name}, {label}",
                spent / size * 1000,
                "ms/item",
                f"{eager / spent:.2f} x eager fp32, batch of {size}, {counted_runs(repeats)}",
                limit=f"{spec.gmacs_per_item:.3g} GMAC at the GEMM peak: {least * 1000:.3g} ms",
            )


def _extractors(name: str, setting: Setting) -> dict[str, Extractor]:
    device = torch.device(setting.device)
    load = partial(backbones.load, name, weights="random", device=device)
    found = {"eager fp32": load(engine="torch")}
    backbone = backbones.get(name)
    size = backbone.spec.batch_size(device.type)
    engine = choose(backbone, setting.engine, device=setting.device, batch_size=size).engine
    for precision in setting.precisions:
        if engine != "torch" or precision != "fp32":
            found[f"{engine} {precision}"] = load(engine=engine, precision=precision)  # type: ignore[arg-type]
    return found


def _timed(run: Extractor, items: torch.Tensor) -> float:
    started = time.perf_counter()
    run(items)
    return time.perf_counter() - started


if __name__ == "__main__":
    alone(figures, "forward", __doc__)
