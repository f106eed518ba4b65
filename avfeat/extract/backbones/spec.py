"""What a backbone takes, gives and is: plain frozen values, light enough to list without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Geometry:
    """One visual geometry: uint8 RGB ``[H, W, 3]`` to uint8 RGB ``[*shape, 3]``.

    Pixels are resized with Pillow's bilinear filter, which antialiases when it shrinks; that is the
    filter of every published pipeline that avfeat reproduces. See `avfeat.extract.transforms`.

    Parameters
    ----------
    resize
        An int scales the short side to that many pixels and keeps the aspect, the long side
        truncated as torchvision does. ``(height, width)`` forces both sides.
    crop
        Side of the centre crop in pixels, or None for no crop.

    Raises
    ------
    ValueError
        The pictures of one batch would differ in shape, or the crop would exceed the picture.
    """

    resize: int | tuple[int, int]
    crop: int | None = None

    def __post_init__(self) -> None:
        """Refuse geometries that have no fixed shape."""
        short = self.resize if isinstance(self.resize, int) else min(self.resize)
        if self.crop is None and isinstance(self.resize, int):
            raise ValueError(f"resize={self.resize} keeps the aspect and so needs a crop")
        if min(short, self.crop if self.crop is not None else short) < 1:
            raise ValueError(f"sides must be positive: resize={self.resize}, crop={self.crop}")
        if self.crop is not None and self.crop > short:
            raise ValueError(f"crop={self.crop} exceeds the short side {short}")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of every result, in pixels."""
        if self.crop is not None:
            return (self.crop, self.crop)
        assert not isinstance(self.resize, int)  # __post_init__ refused it
        return self.resize

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels after the resize, before the crop.

        >>> Geometry(256, 224).resized(240, 426)
        (256, 454)
        """
        if not isinstance(self.resize, int):
            return self.resize
        short, long = min(height, width), max(height, width)
        # Truncated, not rounded: torchvision's rule, and with it the crop's offset is the same.
        scaled = int(self.resize * long / short)
        return (self.resize, scaled) if height <= width else (scaled, self.resize)


@dataclass(frozen=True, slots=True)
class VisualInput:
    """Items cut from sampled frames: item i is frames ``[i * stride, i * stride + frames)``.

    Parameters
    ----------
    geometry
        How each frame becomes a picture of one fixed shape.
    frames
        Frames per item; 1 is an image network.
    stride
        Frames between the starts of neighbouring items.
    mean, std
        Per channel, RGB, for pixels scaled to [0, 1].
    """

    geometry: Geometry
    frames: int = 1
    stride: int = 1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one uint8 item: ``[H, W, 3]``, or ``[T, H, W, 3]`` for several frames."""
        picture = (*self.geometry.shape, 3)
        return picture if self.frames == 1 else (self.frames, *picture)

    def rows(self, n_frames: int) -> int:
        """Complete items in ``n_frames`` sampled frames."""
        return 0 if n_frames < self.frames else (n_frames - self.frames) // self.stride + 1


@dataclass(frozen=True, slots=True)
class AudioInput:
    """Items cut from a mono waveform: item i is samples ``[i * hop, i * hop + window)``.

    Parameters
    ----------
    rate
        Samples per second that the network was trained at.
    window, hop
        Samples per item, and samples between the starts of neighbouring items.
    front_end
        Name of what turns samples into the network's input; ``"waveform"`` is the samples as they
        are.
    """

    rate: int
    window: int
    hop: int
    front_end: str = "waveform"

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one float32 item: ``[window]``."""
        return (self.window,)

    def rows(self, n_samples: int) -> int:
        """Complete items in ``n_samples`` samples at `rate`."""
        return 0 if n_samples < self.window else (n_samples - self.window) // self.hop + 1


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Everything about a backbone that can be known without building it.

    Parameters
    ----------
    name
        What users type.
    modality
        ``"audio"`` or ``"visual"``; the type of `input` must agree.
    dim
        Length of one feature row.
    layer
        Where the network is cut, in words a paper would use.
    input
        What one item is and how it is preprocessed.
    weights
        Tags of published weights, the default first; empty for a network that has none.
    parameters
        Trainable parameters of the network as cut.
    gmacs_per_item
        Multiply-accumulates per item in units of 1e9, convolutions and matrix products only.
    cpu_batch, cuda_batch
        Items per forward pass. Fixed per device kind, because a row's last bits can depend on it.
    paper, description
        Citation of the network, and one line on what is extracted.
    """

    name: str
    modality: Literal["audio", "visual"]
    dim: int
    layer: str
    input: VisualInput | AudioInput
    weights: tuple[str, ...]
    parameters: int
    gmacs_per_item: float
    paper: str
    description: str
    cpu_batch: int = 8
    cuda_batch: int = 64

    def __post_init__(self) -> None:
        """Refuse a spec whose modality and input disagree."""
        if isinstance(self.input, AudioInput) != (self.modality == "audio"):
            raise ValueError(f"backbone {self.name!r}: {self.modality} with {self.input!r}")

    def batch_size(self, device_type: str) -> int:
        """Items per forward pass on a torch device type (``"cpu"``, ``"cuda"``)."""
        return self.cpu_batch if device_type == "cpu" else self.cuda_batch

    def rows(self, seconds: float, fps: float) -> int:
        """Rows that a clip of ``seconds`` gives when its video is sampled at ``fps`` frames/s."""
        if isinstance(self.input, AudioInput):
            return self.input.rows(round(seconds * self.input.rate))
        return self.input.rows(round(seconds * fps))

    def recipe(self) -> dict[str, Any]:
        """All of the preprocessing and of the cut that can change a number, ready for JSON."""
        settings: dict[str, Any]
        if isinstance(self.input, AudioInput):
            settings = {
                "rate": self.input.rate,
                "window": self.input.window,
                "hop": self.input.hop,
                "front_end": self.input.front_end,
            }
        else:
            resize = self.input.geometry.resize
            settings = {
                "resize": resize if isinstance(resize, int) else list(resize),
                "crop": self.input.geometry.crop,
                "interpolation": "pil-bilinear",
                "colour": "RGB",
                "frames": self.input.frames,
                "stride": self.input.stride,
                "mean": list(self.input.mean),
                "std": list(self.input.std),
            }
        return {
            "name": self.name,
            "modality": self.modality,
            "layer": self.layer,
            "dim": self.dim,
            "input": settings,
        }
