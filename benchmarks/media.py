"""From file to the uint8 crops that resnet152 takes: avfeat beside decord, torchcodec and PyAV.

Everybody gives the same frames, 8 a second, resized to 256 and cropped to 224 by Pillow, with the
same number of threads: in two, the others decode in both and avfeat decodes in one and resizes in
the other, as it does when it extracts. As many processors are allowed as there are threads, because
decord has a thread that decodes ahead beside those it is told to use. Runs alternate; ratios are of
median wall times.

``python -m benchmarks.media`` runs it alone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from avfeat.extract.backbones.spec import Geometry, VisualInput
from avfeat.extract.items import VisualItems
from avfeat.extract.media import ClipReader, Frame, Window
from avfeat.extract.stages import Behind, Figures
from avfeat.testing.clips import make_clip
from benchmarks.figure import Figure

SHARED = Path(__file__).resolve().parents[2] / "shared" / "media"
FPS = 8
FRAMES = 80
#: avfeat's speed over the best of the others: over all clips (geometric mean), and for any one.
TARGET, FLOOR = 1.2, 0.95
#: Largest difference of any byte to avfeat's.
TOLERANCE = 1

Crops = NDArray[np.uint8]
Contender = Callable[[Path, list[int], int], Crops]


def avfeat_crops(path: Path, _: list[int], threads: int) -> Crops:
    """What avfeat hands to a backbone, uint8 [n, 224, 224, 3]."""
    chunks: list[np.ndarray] = []
    items = VisualItems(
        {"resnet152": VisualInput(Geometry(256, 224))},
        lambda _name, pictures, _times: chunks.append(pictures),
        device="cpu",
    )

    def take(frame: Frame) -> None:
        items.push(frame.picture, frame.time)

    with ClipReader(path) as reader:
        window = Window(0, FRAMES / FPS, whole=True)
        frames = reader.frames("on-screen", window=window, fps=FPS, count=FRAMES)
        if threads == 1:
            for frame in frames:
                take(frame)
        else:
            with Behind("geometry", take, depth=8, figures=Figures(), upstream=Figures()) as stage:
                for frame in frames:
                    stage.put(frame)
        items.finish()
    return np.concatenate(chunks)


def resized(frames: Iterable[NDArray[np.uint8]]) -> Crops:
    """Resize and crop as torchvision does on PIL images: what the others have to do."""
    crops = []
    for rgb in frames:
        height, width = rgb.shape[:2]
        short = min(height, width)
        size = (int(256 * width / short), int(256 * height / short))
        left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
        picture = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR)
        crops.append(np.asarray(picture.crop((left, top, left + 224, top + 224))))
    return np.stack(crops)


def pyav_crops(path: Path, numbers: list[int], threads: int) -> Crops:
    """Every frame decoded by PyAV, the wanted ones converted."""

    def frames() -> Iterable[NDArray[np.uint8]]:
        wanted, last = set(numbers), numbers[-1]
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = threads
            container.streams.video[0].codec_context.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    yield frame.to_ndarray(format="rgb24", threads=threads)
                if number == last:
                    return

    return resized(frames())


def decord_crops(path: Path, numbers: list[int], threads: int) -> Crops:
    """The wanted frames by decord."""
    decord = importlib.import_module("decord")
    reader = decord.VideoReader(str(path), num_threads=threads)
    return resized(reader[number].asnumpy() for number in numbers)


def torchcodec_crops(path: Path, numbers: list[int], threads: int) -> Crops:
    """The wanted frames by torchcodec."""
    decoders = importlib.import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(
        str(path), dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode="exact"
    )
    return resized(decoder[number].numpy() for number in numbers)


def others() -> tuple[dict[str, Contender], list[str]]:
    """Return who can be compared with here, and why the rest cannot."""
    found: dict[str, Contender] = {"pyav": pyav_crops}
    missing = []
    for name, module, run in (
        ("decord", "decord", decord_crops),
        ("torchcodec", "torchcodec.decoders", torchcodec_crops),
    ):
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:  # no wheel, or no FFmpeg libraries
            missing.append(f"{name} left out ({type(error).__name__})")
        else:
            found[name] = run
    return found, missing


def shown(path: Path) -> list[int]:
    """Number of the frame on screen at each k / 8 s, from the packets' timestamps."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        ticks = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
        assert stream.time_base is not None
        starts = np.array([float(tick * stream.time_base) for tick in ticks])
    instants = np.arange(FRAMES) / FPS + 1e-6
    return np.maximum(np.searchsorted(starts, instants, side="right") - 1, 0).tolist()


@contextmanager
def processors(count: int) -> Iterator[None]:
    """Keep this thread, and those it starts, to `count` processors (on Linux; elsewhere all)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def compare(path: Path, *, threads: int, runs: int) -> Figure:
    """Measure one clip with one number of threads."""
    contenders, missing = others()
    contenders = {"avfeat": avfeat_crops, **contenders}
    with processors(threads):
        return _compare(path, contenders, missing, threads=threads, runs=runs)


def _compare(
    path: Path, contenders: dict[str, Contender], missing: list[str], *, threads: int, runs: int
) -> Figure:
    numbers = shown(path)
    ours = avfeat_crops(path, numbers, threads).astype(int)
    worst = {}
    for name, run in contenders.items():  # and warms every one up
        worst[name] = int(np.abs(run(path, numbers, threads) - ours).max())
        if worst[name] > TOLERANCE:
            raise RuntimeError(f"{path.name}: {name} is up to {worst[name]} off; not the same work")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(runs):
        turn = number % len(contenders)  # nobody always runs after the same one
        order = [*contenders][turn:] + [*contenders][:turn]
        for name in order:
            started = time.perf_counter()
            contenders[name](path, numbers, threads)
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    best = min((name for name in median if name != "avfeat"), key=median.__getitem__)
    ratio = median[best] / median["avfeat"]
    parts = [f"{name} {value * 1000:.0f} ms" for name, value in median.items()]
    off = max(worst.values())
    detail = [*parts, f"best {best}", f"largest difference {off}/255", f"{runs} runs", *missing]
    return Figure(
        f"media {path.stem}, {threads} thread{'s' * (threads > 1)}",
        ratio,
        "x",
        FLOOR,
        ratio >= FLOOR,
        ", ".join(detail),
    )


def figures(folder: Path, *, runs: int = 7) -> list[Figure]:
    """Measure every clip in one thread and in two, and the mean over them.

    Parameters
    ----------
    folder
        Where synthetic clips are made.
    runs
        Alternating runs whose median counts.

    Returns
    -------
    list of Figure
        Ratios of the best other's time to avfeat's: one for each clip and number of threads, to
        be no less than 0.95, and their geometric mean for each number of threads, to be 1.2.
    """
    clips = [*sorted(SHARED.glob("*.mp4")), *synthetic_clips(folder)]
    found = []
    for threads in (1, 2):
        each = [compare(path, threads=threads, runs=runs) for path in clips]
        mean = statistics.geometric_mean(figure.value for figure in each)
        name = f"media, {threads} thread{'s' * (threads > 1)}"
        detail = f"geometric mean over {len(each)} clips, least {min(f.value for f in each):.2f}"
        found += [*each, Figure(name, mean, "x", TARGET, mean >= TARGET, detail)]
    return found


def synthetic_clips(folder: Path) -> list[Path]:
    """Make 10 s of H.264 with B-frames, 360p and 1080p: a picture that pans, with grain."""
    return [
        make_clip(
            folder / f"synthetic-{height}p.mp4",
            size=(width, height),
            gop=60,
            b_frames=3,
            options={"crf": "23"},
            paint=_panning(height, width),
        )
        for width, height in ((640, 360), (1920, 1080))
    ]


def _panning(height: int, width: int) -> Callable[[int, float, Crops], None]:
    rng = np.random.default_rng(height)
    tall, wide = height + 300, width + 600
    scene = np.zeros((tall, wide, 3), dtype=np.float32)
    for detail in (6, 24, 96):
        coarse = rng.random((tall * detail // height + 2, wide * detail // height + 2, 3))
        scene += cv2.resize(coarse.astype(np.float32), (wide, tall), interpolation=cv2.INTER_CUBIC)
    scene = np.clip(scene * 75, 0, 240).astype(np.uint8)
    grain = rng.integers(0, 8, (height + 64, width + 64, 3), dtype=np.uint8)

    def paint(number: int, _: float, canvas: Crops) -> None:
        top, left = number, 2 * number
        y, x = rng.integers(0, 64, 2)
        view = scene[top : top + height, left : left + width]
        np.add(view, grain[y : y + height, x : x + width], out=canvas)

    return paint


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.media", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="alternating runs (default 7)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for figure in figures(Path(folder), runs=options.runs):
            verdict = "" if figure.met is None else " met" if figure.met else " NOT MET"
            print(f"{figure.name}: {figure.value:.2f}{figure.unit}{verdict} ({figure.detail})")


if __name__ == "__main__":
    main()
