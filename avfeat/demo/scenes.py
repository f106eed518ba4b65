"""An LLP-shaped data set of three synthetic clips with planted audio and visual events."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avfeat.manifests.clips import Event
from avfeat.testing.clips import AudioTrack, make_clip

SECONDS = 10.0
_SIZE = (320, 240)
#: Hz and colour hue of each planted class.
_LOOKS = {
    "Speech": (220.0, 0.08),
    "Dog": (550.0, 0.33),
    "Car": (110.0, 0.60),
    "Violin_fiddle": (880.0, 0.83),
    "Fire_alarm": (1760.0, 0.00),
    "Singing": (330.0, 0.14),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One clip: its official file name, split and planted events."""

    filename: str
    split: str
    events: tuple[Event, ...]

    @property
    def media_id(self) -> str:
        """The 11 characters its media file is named by."""
        return self.filename[:11]

    @property
    def labels(self) -> tuple[str, ...]:
        """Weak labels: every planted class once."""
        return tuple(dict.fromkeys(event.label for event in self.events))


def _both(label: str, onset: float, offset: float) -> tuple[Event, Event]:
    return Event("audio", label, onset, offset), Event("visual", label, onset, offset)


SCENES = (
    Scene("demoClip_02_30_40", "train", (Event("audio", "Speech", 0, 10), *_both("Car", 4, 9))),
    Scene(
        "demoClip_04_90_100", "val", (*_both("Violin_fiddle", 1, 8), Event("audio", "Dog", 6, 7))
    ),
    Scene(
        "-demoClip05_0_10",
        "test",
        (
            Event("audio", "Fire_alarm", 3, 7),
            *_both("Singing", 6, 10),
            Event("visual", "Car", 0, 4),
        ),
    ),
)


def make_scenes(folder: Path) -> tuple[Path, Path]:
    """Write media and annotation files; return the two folders."""
    media, annotations = folder / "media", folder / "annotations"
    media.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        path = media / f"{scene.media_id}.mp4"
        if not path.exists():
            _make(scene, path)
    for name, content in _csv_files().items():
        (annotations / name).write_text(content)
    return media, annotations


def _make(scene: Scene, path: Path) -> None:
    tones = [
        (event.onset, event.offset, _LOOKS[event.label][0] * overtone, 0.25 / overtone)
        for event in scene.events
        if event.modality == "audio"
        for overtone in (1, 2, 3)
    ]
    make_clip(
        path,
        fps=25,
        duration=SECONDS,
        size=_SIZE,
        audio=AudioTrack(tones, gains=(1.0, 1.0)),
        paint=_painter(scene),
    )


def _painter(scene: Scene) -> Callable[[int, float, np.ndarray], None]:
    rng = np.random.default_rng(zlib.crc32(scene.filename.encode()))
    width, height = _SIZE
    ramp = np.linspace(0.2, 0.5, width)[None, :, None] * rng.uniform(90, 200, 3)
    grain = rng.normal(0, 6, (height, width, 1))
    background = np.clip(ramp + grain, 0, 255).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width]

    def paint(number: int, time: float, canvas: np.ndarray) -> None:
        canvas[:] = background
        for place, event in enumerate(scene.events):
            if event.modality == "visual" and event.onset <= time < event.offset:
                hue = _LOOKS[event.label][1]
                colour = np.array(colorsys.hsv_to_rgb(hue, 0.85, 1.0)) * 255
                x = width * (0.5 + 0.35 * np.sin(2 * np.pi * (time / 4 + place / 3)))
                y = height * (0.45 + 0.2 * np.cos(2 * np.pi * (time / 3 + hue)))
                radius = 34 + 8 * np.sin(2 * np.pi * time)
                canvas[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = colour.astype(np.uint8)

    return paint


def _csv_files() -> dict[str, str]:
    """Lay the scenes out as the official LLP files."""
    files = {}
    for split, name in (("train", "train"), ("val", "val_pd"), ("test", "test_pd")):
        lines = ["filename\tevent_labels"]
        lines += [f"{s.filename}\t{','.join(s.labels)}" for s in SCENES if s.split == split]
        files[f"AVVP_{name}.csv"] = "\n".join(lines) + "\n"
    for modality in ("audio", "visual"):
        lines = ["filename\tonset\toffset\tevent_labels"]
        lines += [
            f"{scene.filename}\t{event.onset:g}\t{event.offset:g}\t{event.label}"
            for scene in SCENES
            if scene.split != "train"
            for event in scene.events
            if event.modality == modality
        ]
        files[f"AVVP_eval_{modality}.csv"] = "\n".join(lines) + "\n"
    return files
