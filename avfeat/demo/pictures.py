"""A picture per clip: frames, waveform and every feature set over one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from avfeat.extract.media import ClipReader, locate_window
from avfeat.manifests.clips import Event
from avfeat.stores import FeatureStore

_RATE = 16000
_SHOWN_DIMS = 64


def draw_clip(
    path: Path,
    *,
    media: Path,
    clip_id: str,
    seconds: float,
    events: Sequence[Event],
    stores: Sequence[FeatureStore],
) -> None:
    """Draw one clip into a PNG.

    Parameters
    ----------
    path, media
        The picture to write; the clip's media file (trimmed).
    clip_id, seconds
        Id in the stores; length of the clip.
    events
        Shown as bars: what is really there.
    stores
        Each is shown as rows over time, of the 64 features that vary most in the clip.
    """
    with ClipReader(media) as reader:
        window = locate_window(reader.info, 0.0, seconds)
        shown = reader.frames("center", window=window, fps=1, count=round(seconds))
        frames = [frame.rgb for frame in shown]
        blocks = [block[_RATE] for block in reader.audio({_RATE}, window=window)]
    waveform = np.concatenate(blocks)
    heights = [1.15, 0.9, 0.12 + 0.2 * len(events), *[1.5] * len(stores)]
    figure = Figure(figsize=(12, sum(heights) + 0.35 * len(heights) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    figure.suptitle(clip_id, fontweight="bold", parse_math=False)
    _draw_frames(axes[0], frames, seconds)
    _draw_waveform(axes[1], waveform)
    _draw_events(axes[2], events)
    for panel, store in zip(axes[3:], stores, strict=True):
        _draw_features(panel, store, clip_id)
    axes[-1].set_xlim(0, seconds)
    axes[-1].set_xlabel("seconds in the clip")
    figure.savefig(path, dpi=100)


def _draw_frames(axes: Axes, frames: Sequence[np.ndarray], seconds: float) -> None:
    step = seconds / len(frames)
    for number, frame in enumerate(frames):
        axes.imshow(frame, extent=(number * step, (number + 1) * step, 0, 1), aspect="auto")
    axes.set_xlim(0, seconds)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_ylabel("frames")


def _draw_waveform(axes: Axes, waveform: np.ndarray) -> None:
    # The envelope of 10 ms pieces: 160 000 points would be one blur.
    piece = _RATE // 100
    usable = waveform[: len(waveform) // piece * piece].reshape(-1, piece)
    times = (np.arange(len(usable)) + 0.5) * piece / _RATE
    axes.fill_between(times, usable.min(axis=1), usable.max(axis=1), color="tab:blue", linewidth=0)
    axes.set_ylim(-1.05, 1.05)
    axes.set_ylabel("audio")


def _draw_events(axes: Axes, events: Sequence[Event]) -> None:
    colours = {"audio": "tab:blue", "visual": "tab:orange"}
    for row, event in enumerate(events):
        axes.barh(
            -row,
            event.offset - event.onset,
            left=event.onset,
            color=colours[event.modality],
            height=0.8,
        )
        text = f"{event.modality}: {event.label}"
        axes.text(event.onset + 0.05, -row, text, va="center", fontsize=8, parse_math=False)
    axes.set_yticks([])
    axes.set_ylabel("planted", rotation=0, ha="right", va="center")


def _draw_features(axes: Axes, store: FeatureStore, clip_id: str) -> None:
    name = store.recipe.backbone["name"]
    note = " (random weights)" if store.recipe.weights["source"] == "random" else ""
    if clip_id not in store:
        outcome = store.outcome(clip_id)
        axes.text(0.01, 0.5, f"{outcome.status} {outcome.message}", transform=axes.transAxes)
        axes.set_yticks([])
        axes.set_ylabel(name)
        return
    rows, times = store[clip_id], store.times(clip_id)
    dims = np.sort(np.argsort(rows.var(axis=0))[-_SHOWN_DIMS:])
    picked = rows[:, dims]
    scaled = (picked - picked.mean(axis=0)) / (picked.std(axis=0) + 1e-9)
    # Cell borders halfway between the rows' times: frames are not evenly spaced.
    step = np.median(np.diff(times)) if len(times) > 1 else 1.0
    middles = (times[1:] + times[:-1]) / 2
    borders = np.concatenate([[times[0] - step / 2], middles, [times[-1] + step / 2]])
    axes.pcolormesh(
        borders,
        np.arange(len(dims) + 1),
        scaled.T,
        cmap="viridis",
        vmin=-2,
        vmax=2,
        rasterized=True,
    )
    axes.set_yticks([])
    axes.set_ylabel(name)
    axes.set_title(
        f"{rows.shape[0]} x {rows.shape[1]}, {len(dims)} features shown{note}",
        fontsize=8,
        loc="right",
        pad=2,
    )
