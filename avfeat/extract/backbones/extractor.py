"""A backbone with weights on a device: batches of items in, rows out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from avfeat import download
from avfeat.errors import UnknownNameError, UsageError, WeightsError
from avfeat.extract import engines
from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.registry import get
from avfeat.extract.backbones.spec import BackboneSpec
from avfeat.extract.weights import cache
from avfeat.extract.weights.info import WeightsInfo
from avfeat.extract.weights.registry import WeightsEntry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Extractor:
    """What `load` returns. Call it with a batch of items to get their feature rows.

    Attributes
    ----------
    spec : BackboneSpec
    device : torch.device
    weights : WeightsInfo
        What was loaded; `WeightsInfo.to_dict` is ready for a recipe.
    precision : str
        ``"fp32"``, ``"tf32"``, ``"bf16"`` or ``"fp16"``.
    engine : str
        ``"torch"`` or ``"openvino"``.
    """

    def __init__(
        self,
        backbone: Backbone,
        network: Callable[[Tensor], Tensor],
        *,
        weights: WeightsInfo,
        device: torch.device,
        precision: engines.Precision,
        engine: str,
    ) -> None:
        """Take a network with its weights, as an engine runs it; `load` is the way to get there."""
        self.spec: BackboneSpec = backbone.spec
        self.device = device
        self.weights = weights
        self.precision: engines.Precision = precision
        self.engine = engine
        self._backbone = backbone
        self._network = network

    def __call__(self, items: Tensor) -> Tensor:
        """Extract one feature row per item.

        Parameters
        ----------
        items
            On any device: uint8 ``[N, H, W, 3]`` or ``[N, T, H, W, 3]``, float32 waveforms
            ``[N, window]`` with samples in [-1, 1], or float32 snippets with optical flow;
            ``[N, *spec.input.item_shape]`` of ``spec.input.item_dtype`` in short.

        Returns
        -------
        Tensor
            float32 ``[N, dim]``, or ``[N, height, width, dim]`` of a map, on the CPU, whatever the
            device and the precision.

        Raises
        ------
        ValueError
            The items have another shape or type than the spec says.

        Notes
        -----
        fp32 means IEEE float32: TF32 is off on CUDA, where it would cost three digits, and only
        deterministic cuDNN kernels are used. A row can depend in its last bits on the shape of the
        batch it came in, hence fixed batch shapes (`BackboneSpec.batch_size`). Any thread may call.
        """
        return self.start(items)()

    def start(self, items: Tensor) -> Callable[[], Tensor]:
        """Start on a batch of items; what is returned waits for their rows.

        A GPU works on while its caller prepares the next batch; a CPU is done at once. Parameters,
        result and errors are those of a call.
        """
        import torch

        self._check(items)
        on_gpu = self.device.type == "cuda"
        # Front ends and normalisation are torch's, in float32 or better, whatever runs the network.
        with engines.computing(self.device, "fp32"):
            if on_gpu and not items.is_cuda:
                items = items.pin_memory()  # else the copy would wait for the GPU
            batch = self._backbone.to_input(items.to(self.device, non_blocking=on_gpu))
            rows = self._network(batch)
            if self.spec.map is not None:
                rows = rows.movedim(1, -1)
            if on_gpu:
                return _landing(rows)
            rows = rows.to(device="cpu", dtype=torch.float32).contiguous()
        return lambda: rows

    def _check(self, items: Tensor) -> None:
        import torch

        dtype = getattr(torch, self.spec.input.item_dtype)
        shape = self.spec.input.item_shape
        if items.dtype != dtype or tuple(items.shape[1:]) != shape:
            raise ValueError(
                f"backbone {self.spec.name!r} takes {dtype} [N, {', '.join(map(str, shape))}], "
                f"got {items.dtype} {list(items.shape)}"
            )


def _landing(rows: Tensor) -> Callable[[], Tensor]:
    """Start copying rows from the GPU; return what waits for the copy."""
    import torch

    landed = torch.empty(rows.shape, dtype=torch.float32, pin_memory=True)
    landed.copy_(rows, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(rows.device))

    def wait() -> Tensor:
        copied.synchronize()
        return landed

    return wait


def load(
    name: str | Backbone,
    *,
    weights: str | WeightsInfo = "published",
    device: torch.device,
    precision: engines.Precision = "fp32",
    engine: str = "torch",
    batch_size: int | None = None,
) -> Extractor:
    """Build a backbone, give it weights and put it on a device.

    Parameters
    ----------
    name
        Name of a backbone, see `get`, or one itself.
    weights
        ``"published"`` (the tag in the name, else the default), ``"random"``,
        ``"random:<seed>"`` or a weights tag; or what `resolve_weights` returned for one of these.
    device
        Where to run.
    precision
        ``"fp32"``; ``"bf16"`` where the hardware has it, about twice as fast; ``"tf32"`` and
        ``"fp16"`` on CUDA. Each is another recipe.
    engine
        ``"torch"``, ``"openvino"`` or ``"auto"``, see `avfeat.extract.engines.choose`.
    batch_size
        Items per forward pass, which OpenVINO has to know beforehand; None for the spec's.

    Raises
    ------
    UnknownNameError
        No such backbone or weights tag.
    UsageError
        A seed that is no integer; a precision or an engine that there is not on the device.
    EngineError
        The engine cannot run the network.
    WeightsError
        The weights cannot be had, or are not the published ones, or fit another architecture.
    """
    precision = engines.check_precision(precision, device=str(device))
    backbone = get(name) if isinstance(name, str) else name
    size = batch_size or backbone.spec.batch_size(device.type)
    engine = engines.choose(backbone, engine, device=str(device), batch_size=size).engine
    info = weights if isinstance(weights, WeightsInfo) else resolve_weights(backbone, weights)
    network: Callable[[Tensor], Tensor]
    if engine == "openvino":
        from avfeat.extract.engines import compiled

        network = compiled.load(
            backbone, info, partial(_build, backbone, info), batch_size=size, precision=precision
        )
    else:
        from avfeat.extract.engines.plain import TorchNetwork

        network = TorchNetwork(_build(backbone, info), device=device, precision=precision)
    return Extractor(
        backbone, network, weights=info, device=device, precision=precision, engine=engine
    )


def _build(backbone: Backbone, info: WeightsInfo) -> nn.Module:
    """Build a network and give it weights."""
    import torch

    from avfeat.extract.weights.random import calibrate
    from avfeat.extract.weights.state import load_weights

    # Constructors draw initial weights that are about to be overwritten; the fork keeps the
    # caller's global random state as it was.
    with torch.random.fork_rng(devices=[]):
        net = backbone.build()
    if info.seed is not None:
        calibrate(net, backbone, seed=info.seed)
    else:
        load_weights(net, backbone, info)
    return net


def resolve_weights(
    name: str | Backbone, weights: str = "published", *, progress: download.Progress | None = None
) -> WeightsInfo:
    """Make sure that the weights are there and intact, without building a network.

    Published weights are looked up in the cache, downloaded if absent and hashed either way: the
    file, and what the network takes from it. Parameters and errors are those of `load`; `progress`
    is told of a download.
    """
    from avfeat.extract.weights.state import identify

    backbone = get(name) if isinstance(name, str) else name
    found = find_entry(backbone, weights)
    if isinstance(found, WeightsInfo):
        return found
    return identify(cache.obtain(found, progress=progress), backbone)


def peek_weights(backbone: Backbone, entry: WeightsEntry) -> WeightsInfo | None:
    """Say what `resolve_weights` would, where the cache has them already; else None.

    Nothing is downloaded or written.

    Raises
    ------
    WeightsError
        What is in the cache is damaged, or does not fit.
    """
    from avfeat.extract.weights.state import identify

    info = cache.find(entry)
    return None if info is None else identify(info, backbone)


def find_entry(name: str | Backbone, weights: str = "published") -> WeightsEntry | WeightsInfo:
    """Say which weights are meant, without looking for their file.

    Returns
    -------
    WeightsEntry or WeightsInfo
        The registry's entry of published weights; random weights need no file and are done.
    """
    backbone = get(name) if isinstance(name, str) else name
    kind, colon, seed = weights.partition(":")
    if kind == "random":
        if colon and not (seed.isascii() and seed.isdigit() and int(seed) < 2**63):
            raise UsageError(f"{weights!r}: the seed must be an integer in [0, 2**63): random:7")
        return WeightsInfo.random(int(seed or 0))
    tags = backbone.spec.weights
    if not tags:
        raise WeightsError(
            f"backbone {backbone.spec.name!r} has no published weights; use "
            "`avfeat extract --weights random`"
        )
    tag = (backbone.tag or tags[0]) if weights == "published" else weights
    if tag not in tags:
        raise UnknownNameError(
            f"weights tag of {backbone.spec.name}", tag, [*tags, "published", "random"]
        )
    return backbone.weights_entry(tag)
