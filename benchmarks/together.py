"""All backbones together, one decode, against one after another with the loop of labs.

Without `i3d` and `i3d_flow`, whose optical flow takes minutes per clip on a CPU, whoever computes
it.
Networks are loaded and prepared outside the timed part on both sides.

``python -m benchmarks.together`` runs it alone.
"""

from __future__ import annotations

from avfeat.extract import backbones
from avfeat.extract.backbones import VisualInput
from benchmarks.figure import Figure, plain
from benchmarks.labs import Loop
from benchmarks.limits import decode_seconds, gemm_peak
from benchmarks.reference import loop_seconds
from benchmarks.setting import TINY, Setting, alone, alternate, counted_runs, medians


def names(setting: Setting) -> list[str]:
    """Every backbone that needs no optical flow."""
    if setting.quick:
        return list(TINY)
    chosen = [backbones.get(name) for name in backbones.names()]
    return [
        b.spec.name
        for b in chosen
        if not isinstance(b.spec.input, VisualInput) or b.spec.input.stream == "rgb"
    ]


def figures(setting: Setting) -> list[Figure]:
    """Measure both on one clip."""
    repeats = setting.repeats(3)
    which = names(setting)
    chosen = [backbones.get(name) for name in which]
    media = setting.clips(1)
    clip = media / "clip0000.mp4"
    loops = [Loop(backbone, setting.device) for backbone in chosen]
    setting.extract(which, media)  # loads and prepares the networks
    seconds = medians(
        alternate(
            {
                "loop": lambda: sum(loop_seconds(loop, clip) for loop in loops),
                "avfeat": lambda: setting.extract(which, media).wall,
            },
            repeats=repeats,
        )
    )
    setting.forget()
    gmacs = sum(b.spec.rows(10.0) * b.spec.pool * b.spec.gmacs_per_item for b in chosen)
    decoding = decode_seconds(clip, tuple(b.spec for b in chosen), repeats=repeats)
    return [
        plain(
            f"all {len(which)} backbones together, against the loop one after another",
            seconds["loop"] / seconds["avfeat"],
            "x",
            f"one clip: loop {seconds['loop']:.1f} s, avfeat {seconds['avfeat']:.1f} s, fp32, "
            f"{counted_runs(repeats)}; without optical flow: {', '.join(which)}",
            limit=f"{gmacs:.0f} GMAC at the GEMM peak "
            f"{gemm_peak(setting, 'fp32').seconds(gmacs):.1f} s, decoding and geometry alone "
            f"{decoding:.2f} s of one core",
        )
    ]


if __name__ == "__main__":
    alone(figures, "together", __doc__)
