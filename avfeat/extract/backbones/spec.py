"""What a backbone takes, gives and is: plain frozen values, light enough to list without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

FPS = 8.0
"""Frames per second of a backbone that does not say otherwise (Tian et al., ECCV 2020)."""

Interpolation = Literal["pil-bilinear", "pil-bicubic", "pil-lanczos", "pil-nearest", "cv2-linear"]
FlowMethod = Literal["tvl1-opencv", "tvl1-torch"]
FLOW_METHODS: tuple[FlowMethod, ...] = get_args(FlowMethod)
FLOW_REVISIONS: dict[FlowMethod, int] = {"tvl1-torch": 1}
"""Of avfeat's own methods: raised whenever one's numbers change, see `BackboneSpec.revision`."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Geometry:
    """One visual geometry: uint8 RGB ``[H, W, 3]`` to uint8 RGB ``[*shape, 3]``.

    See `avfeat.extract.transforms`.

    Parameters
    ----------
    resize
        An int scales the short side to that many pixels and keeps the aspect, the long side
        truncated as torchvision does. ``(height, width)`` forces both sides.
    crop
        Side of the centre crop in pixels, or None for no crop.
    interpolation
        Filter of the resize. Pillow's antialias when they shrink, as nearly every published
        pipeline does; OpenCV's bilinear does not.

    Raises
    ------
    ValueError
        The pictures of one batch would differ in shape, or the crop would exceed the picture.
    """

    resize: int | tuple[int, int]
    crop: int | None = None
    interpolation: Interpolation = "pil-bilinear"

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
    """Items cut from a stream of sampled frames, of their optical flow, or of both.

    Item i is entries ``[i * stride - padding, i * stride - padding + frames)`` of the stream, whose
    first and last entry are repeated `padding` times.

    Parameters
    ----------
    geometry
        How each frame becomes a picture of one fixed shape.
    frames
        Frames per item; 1 is an image network.
    stride
        Frames between the starts of neighbouring items.
    padding
        Repetitions of the stream's first and of its last entry.
    fps
        Frames sampled per second.
    rule
        Sampling rule that the recipe insists on; None for the run's.
    stream
        ``"rgb"``; ``"flow"``: entry k is the optical flow from frame k to k + 1 (the last entry
        repeats the one before it), computed after the resize and cropped like a frame; or
        ``"rgb+flow"``: both in one item.
    flow
        Method of the optical flow, see `avfeat.extract.flow`.
    flow_bits
        Bits that the flow, clipped, is rounded to; None for no rounding.
    white
        What a white pixel is before mean and std: 1 or 255.
    colour
        Order of the channels that the network takes.
    mean, std
        Per channel, in the order of `colour` and for pixels scaled to [0, white].
    """

    geometry: Geometry
    frames: int = 1
    stride: int = 1
    padding: int = 0
    fps: float = FPS
    rule: str | None = None
    stream: Literal["rgb", "flow", "rgb+flow"] = "rgb"
    flow: FlowMethod = "tvl1-opencv"
    flow_bits: int | None = None
    white: float = 1.0
    colour: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def channels(self) -> int:
        """Values per pixel of an item: 3 for RGB, 2 for flow (x, y), 5 for both in that order."""
        return {"rgb": 3, "flow": 2, "rgb+flow": 5}[self.stream]

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one item: ``[H, W, C]``, or ``[T, H, W, C]`` for several frames."""
        picture = (*self.geometry.shape, self.channels)
        return picture if self.frames == 1 else (self.frames, *picture)

    @property
    def item_dtype(self) -> Literal["uint8", "float32"]:
        """uint8 for pictures alone; float32 with flow, whose unit is a pixel (RGB is 0 to 255)."""
        return "uint8" if self.stream == "rgb" else "float32"

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages whose version matters to such items, beyond what every recipe names."""
        opencv = self.geometry.interpolation.startswith("cv2") or self.stream != "rgb"
        return ("opencv-contrib-python-headless",) if opencv else ()

    def samples(self, seconds: float) -> int:
        """Frames sampled in ``seconds``."""
        return round(seconds * self.fps)

    def items(self, seconds: float) -> int:
        """Complete items in ``seconds`` of video."""
        n = self.samples(seconds)
        n += 2 * self.padding if n else 0
        return 0 if n < self.frames else (n - self.frames) // self.stride + 1

    def recipe(self) -> dict[str, Any]:
        """All that can change a number, ready for JSON."""
        resize = self.geometry.resize
        settings: dict[str, Any] = {
            "resize": resize if isinstance(resize, int) else list(resize),
            "crop": self.geometry.crop,
            "interpolation": self.geometry.interpolation,
            "colour": self.colour,
            "frames": self.frames,
            "stride": self.stride,
            "mean": list(self.mean),
            "std": list(self.std),
        }
        # Named where they differ from what every recipe once had: fingerprints live on in stores.
        if self.padding:
            settings["padding"] = self.padding
        if self.stream != "rgb":
            settings |= {"stream": self.stream, "flow": self.flow, "flow_bits": self.flow_bits}
            if (revision := FLOW_REVISIONS.get(self.flow, 1)) > 1:
                settings["flow_revision"] = revision
        if self.white != 1.0:
            settings["white"] = self.white
        return settings


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
    via
        Lower rate that the sound goes through first, as where only that was kept; nothing above
        half of it is left. None for straight from the clip's own rate.
    """

    rate: int
    window: int
    hop: int
    front_end: str = "waveform"
    via: int | None = None

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one float32 item: ``[window]``."""
        return (self.window,)

    @property
    def item_dtype(self) -> Literal["uint8", "float32"]:
        """float32: samples in [-1, 1]."""
        return "float32"

    @property
    def libraries(self) -> tuple[str, ...]:
        """No packages beyond what every recipe names."""
        return ()

    def items(self, seconds: float) -> int:
        """Complete items in ``seconds`` of sound."""
        n = round(seconds * self.rate)
        return 0 if n < self.window else (n - self.window) // self.hop + 1

    def recipe(self) -> dict[str, Any]:
        """All that can change a number, ready for JSON."""
        settings: dict[str, Any] = {
            "rate": self.rate,
            "window": self.window,
            "hop": self.hop,
            "front_end": self.front_end,
        }
        if self.via is not None:
            settings["via"] = self.via
        return settings


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
        Length of one feature row, or channels of a map.
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
    paper, description
        Citation of the network, and one line on what is extracted.
    cpu_batch, cuda_batch
        Items per forward pass. Fixed per device kind, because a row's last bits can depend on it.
    map
        (height, width) of a row that is a map ``[height, width, dim]``; None for a vector.
    pool
        Consecutive items whose rows are averaged to one; incomplete groups at the end are dropped.
    revision
        Of code that computes rows and has no version of its own in the recipe: avfeat's ports of
        networks and its front ends. Raised whenever their numbers change, so that rows of before
        and after cannot meet in one store.
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
    map: tuple[int, int] | None = None
    pool: int = 1
    revision: int = 1

    def __post_init__(self) -> None:
        """Refuse a spec whose modality and input disagree."""
        if isinstance(self.input, AudioInput) != (self.modality == "audio"):
            raise ValueError(f"backbone {self.name!r}: {self.modality} with {self.input!r}")

    def batch_size(self, device_type: str) -> int:
        """Items per forward pass on a torch device type (``"cpu"``, ``"cuda"``)."""
        return self.cpu_batch if device_type == "cpu" else self.cuda_batch

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row: ``(dim,)``, or ``(height, width, dim)`` for a map."""
        return (self.dim,) if self.map is None else (*self.map, self.dim)

    @property
    def row_seconds(self) -> float:
        """Seconds of a clip that one row needs.

        Frames are sampled by rounding, so that half a frame less is enough.
        """
        wanted = self.input
        if isinstance(wanted, AudioInput):
            return ((self.pool - 1) * wanted.hop + wanted.window) / wanted.rate
        frames = (self.pool - 1) * wanted.stride + wanted.frames - 2 * wanted.padding
        return max(frames, 1) / wanted.fps

    def rows(self, seconds: float) -> int:
        """Rows that a clip of ``seconds`` gives."""
        return self.input.items(seconds) // self.pool

    def recipe(self) -> dict[str, Any]:
        """All of the preprocessing and of the cut that can change a number, ready for JSON."""
        settings = {
            "name": self.name,
            "modality": self.modality,
            "layer": self.layer,
            "dim": self.dim,
            "input": self.input.recipe(),
        }
        if self.map is not None:
            settings["map"] = list(self.map)
        if self.pool > 1:
            settings["pool"] = {"items": self.pool, "by": "mean"}
        if self.revision > 1:
            settings["revision"] = self.revision
        return settings
