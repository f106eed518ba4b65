"""From file to the uint8 crops that resnet152 takes: avfeat beside decord, torchcodec and PyAV.

Everybody gives the same frames, 8 a second, resized to 256 and cropped to 224 by Pillow, with the
same number of threads: in two, the others decode in both and avfeat decodes in one and resizes in
the other, as it does when it extracts. Each of the others is used as it is fastest: all decode with
fewer threads too ("with 1"); PyAV converts in one thread, since it starts new ones for every frame
else; decord and torchcodec give frames one by one and all at once. As many processors are allowed
as there are threads, because decord has a thread that decodes ahead beside those it is told to use.
Runs alternate; ratios are of median wall times.

``python -m benchmarks.media`` runs it alone.
"""

from __future__ import annotations

import importlib
import os
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
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
from benchmarks.figure import Figure, least
from benchmarks.setting import SHARED, Setting, alone, alternate, counted_runs, medians

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
        if threads == 1:
            for frame in wanted(reader):
                take(frame)
        else:
            with Behind("geometry", take, depth=8, figures=Figures(), upstream=Figures()) as stage:
                for frame in wanted(reader):
                    stage.put(frame)
        items.finish()
    return np.concatenate(chunks)


def wanted(reader: ClipReader) -> Iterator[Frame]:
    """Decode the frames that everybody gives, unconverted."""
    window = Window(0, FRAMES / FPS, whole=True)
    return reader.frames("on-screen", window=window, fps=FPS, count=FRAMES)


def decode(path: Path) -> None:
    """Do what is left of avfeat's work without conversion, resizing and cropping."""
    with ClipReader(path) as reader:
        for _ in wanted(reader):
            pass


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

    def frames() -> Iterator[NDArray[np.uint8]]:
        picked, last = set(numbers), numbers[-1]
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = threads
            container.streams.video[0].codec_context.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                if number in picked:
                    yield frame.to_ndarray(format="rgb24", threads=1)
                if number == last:
                    return

    return resized(frames())


def decord_crops(path: Path, numbers: list[int], threads: int, *, batch: bool) -> Crops:
    """The wanted frames by decord, one by one or all at once."""
    decord = importlib.import_module("decord")
    reader = decord.VideoReader(str(path), num_threads=threads)
    if batch:
        return resized(reader.get_batch(numbers).asnumpy())
    return resized(reader[number].asnumpy() for number in numbers)


def torchcodec_crops(path: Path, numbers: list[int], threads: int, *, batch: bool) -> Crops:
    """The wanted frames by torchcodec, one by one or all at once."""
    decoders = importlib.import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(
        str(path), dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode="exact"
    )
    if batch:
        return resized(decoder.get_frames_at(numbers).data.numpy())
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
            found[name] = partial(run, batch=False)
            found[f"{name} at once"] = partial(run, batch=True)
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
    """Keep this thread, and those it starts, to `count` processors (on Linux; elsewhere all).

    Torch and OpenCV, which nobody tells a number of threads here, get one.
    """
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if allowed:
        os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)


def compare(path: Path, *, threads: int, runs: int) -> Figure:
    """Measure one clip with one number of threads."""
    ways, missing = others()
    numbers = shown(path)
    crops: dict[str, Crops] = {}

    def keep(name: str, run: Contender, count: int) -> None:
        crops[name] = run(path, numbers, count)

    contenders = {"avfeat": partial(keep, "avfeat", avfeat_crops, threads)}
    for count in range(threads, 0, -1):  # more of them are not always faster
        for way, run in ways.items():
            name = way if count == threads else f"{way} with {count}"
            contenders[name] = partial(keep, name, run, count)
    with processors(threads):
        alternate(contenders, repeats=1)  # warms every one up
        off = _largest_difference(path, crops)
        seconds = medians(
            alternate({**contenders, "decoding": partial(decode, path)}, repeats=runs)
        )
    decoding = seconds.pop("decoding")
    best = min((name for name in seconds if name != "avfeat"), key=seconds.__getitem__)
    parts = [f"{name} {value * 1000:.0f} ms" for name, value in seconds.items()]
    detail = [*parts, f"best {best}", f"largest difference {off}/255", counted_runs(runs), *missing]
    return least(
        f"media {path.stem}, {threads} thread{'s' * (threads > 1)}",
        seconds[best] / seconds["avfeat"],
        FLOOR,
        ", ".join(detail),
        limit=f"decoding the frames alone, in one thread {decoding * 1000:.0f} ms: "
        f"{seconds[best] / decoding:.2f} x",
    )


def _largest_difference(path: Path, crops: dict[str, Crops]) -> int:
    """Return by how much any byte differs from avfeat's; raise if it is not the same work."""
    ours = crops["avfeat"].astype(int)
    off = {name: int(np.abs(theirs - ours).max()) for name, theirs in crops.items()}
    for name, apart in off.items():
        if apart > TOLERANCE:
            raise RuntimeError(f"{path.name}: {name} is up to {apart} off; not the same work")
    return max(off.values())


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure every clip in one thread and in two, and the mean over them.

    Yields
    ------
    Figure
        Ratios of the best other's time to avfeat's: one for each clip and number of threads, to
        be no less than 0.95, and their geometric mean for each number of threads, to be 1.2.
    """
    folder = setting.fresh("synthetic")
    if setting.quick:
        clips = [make_clip(folder / "clip.mp4", fps=10, size=(128, 96))]
    else:
        clips = [*sorted(SHARED.glob("*.mp4")), *synthetic_clips(folder)]
    for threads in (1, 2):
        ratios = []
        for path in clips:
            figure = compare(path, threads=threads, runs=setting.repeats(7))
            ratios.append(figure.value)
            yield figure
        yield least(
            f"media, {threads} thread{'s' * (threads > 1)}",
            statistics.geometric_mean(ratios),
            TARGET,
            f"geometric mean over {len(clips)} clips, least {min(ratios):.2f}",
        )


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


if __name__ == "__main__":
    alone(figures, "media", __doc__)
