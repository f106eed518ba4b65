"""The check that any backbone should pass, one of avfeat's own or of a plugin package."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avfeat.errors import WeightsError
from avfeat.extract import backbones
from avfeat.extract.backbones import Backbone, Extractor, WeightsInfo
from avfeat.extract.weights.registry import WeightsEntry
from avfeat.testing._demands import TOLERANCE, alike, demand, relative
from avfeat.testing._specs import check_libraries, check_spec
from avfeat.testing._stores import check_store

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_FORGETFUL = 1e-3  # relative L2 difference that rows of two pictures have at the least


def check_backbone(
    backbone: str | Backbone, *, device: str = "cpu", weights: str = "random"
) -> None:
    """Put a backbone through all that avfeat relies on. Prints nothing.

    Checked are, in this order: its spec and name, and that its recipe tells its settings and the
    libraries that its network is made of; shape, dtype and finiteness of its rows; that the
    same items give the same bits; that rows tell items apart; that a row depends neither on its
    neighbours in a batch nor on its place there (to the bit on the CPU), nor on the size of the
    batch (to `TOLERANCE`); that it can be built again alike; that a state dict, saved to a file and
    loaded as weights are, gives the same rows; and that a store extracted from a synthetic clip
    holds exactly its rows, at ascending times.

    Parameters
    ----------
    backbone
        A name, as for ``avfeat extract --backbone``, or a backbone itself.
    device
        Torch device.
    weights
        ``"random"``, ``"random:<seed>"``, ``"published"`` or a tag.

    Raises
    ------
    AssertionError
        Something is wrong; the message says what, and what to do.
    AvfeatError
        There is no such backbone, or its weights cannot be had.

    Examples
    --------
    >>> check_backbone("timm:test_resnet")
    """
    import torch

    found = backbones.get(backbone) if isinstance(backbone, str) else backbone
    check_spec(found)
    extract, net = _load(found, weights=weights, device=torch.device(device))
    check_libraries(found, net)
    _check_rows(found, extract, net)
    _check_batches(extract)
    _check_rebuilt(found, extract, weights=weights)
    with tempfile.TemporaryDirectory(prefix="avfeat-check-") as folder:
        _check_state_dict(found, extract, net, Path(folder))
        check_store(found, extract, Path(folder), weights=weights, device=device)


def _items(extract: Extractor, n: int, seed: int) -> Tensor:
    import torch

    from avfeat.extract.weights.random import smooth_items

    return smooth_items(extract.spec.input, n, torch.Generator().manual_seed(seed))


def _load(backbone: Backbone, *, weights: str, device: torch.device) -> tuple[Extractor, nn.Module]:
    """Load a backbone, and keep hold of the network that `build` gave."""
    built: list[nn.Module] = []

    def build() -> nn.Module:
        built.append(backbone.build())
        return built[-1]

    twin: Any = copy.copy(backbone)
    twin.build = build
    return backbones.load(twin, weights=weights, device=device), built[-1]


def _check_rows(backbone: Backbone, extract: Extractor, net: nn.Module) -> None:
    """Look at what the network itself gives, before `Extractor` makes float32 rows of it."""
    import torch

    spec = extract.spec
    n = max(2, spec.batch_size(extract.device.type))
    items = _items(extract, n, seed=1)
    with torch.inference_mode():
        output: Any = net(backbone.to_input(items.to(extract.device)))
    demand(
        isinstance(output, torch.Tensor),
        spec,
        f"its network gives {type(output).__name__}",
        "Let `build` return a module whose output is one tensor",
    )
    kind = "vectors [N, dim]" if spec.map is None else "maps [N, dim, height, width]"
    wanted = (n, spec.dim) if spec.map is None else (n, spec.dim, *spec.map)
    demand(
        tuple(output.shape) == wanted,
        spec,
        f"{n} items give {list(output.shape)}, the spec's {kind} are {list(wanted)}",
        "Correct `dim` or `map` of the spec, or where `build` cuts the network",
    )
    demand(
        output.dtype == torch.float32,
        spec,
        f"its network gives {output.dtype}",
        "Features are torch.float32, and so are computed: see `build` and `to_input`",
    )
    demand(
        bool(torch.isfinite(output).all()),
        spec,
        "its rows hold NaN or infinity for ordinary items",
        "Look for divisions by zero, logarithms of zero and overflow; check mean, std and white",
    )
    rows = extract(items)
    demand(
        torch.equal(rows, extract(items)),
        spec,
        "the same items give other rows the second time",
        "Switch off what is random, such as dropout outside of nn.Dropout, and keep no state "
        "between calls",
    )
    least = min(relative(rows[i], rows[i - 1]) for i in range(1, n))
    demand(
        least > _FORGETFUL,
        spec,
        f"it forgets its input: rows of different items differ by {least:.1e} of their length",
        "Check that `to_input` scales items as the network expects and that nothing is saturated "
        "or switched off, such as a layer scale that starts near 0",
    )


def _check_batches(extract: Extractor) -> None:
    spec, kind = extract.spec, extract.device.type
    n = spec.batch_size(kind)
    items, others = _items(extract, max(n, 3), seed=2), _items(extract, max(n, 3), seed=3)
    items, others = items.contiguous(), others.contiguous()
    rows = extract(items[:n])
    exact = kind == "cpu"
    if n > 1:
        beside = others[:n].clone()
        beside[0] = items[0]
        demand(
            alike(extract(beside)[0], rows[0], exact=exact),
            spec,
            "a row depends on the other items of its batch",
            "Compute nothing over the batch; batch norm must stay in inference mode after eval()",
        )
        for place in {n // 2, n - 1}:
            moved = others[:n].clone()
            moved[place] = items[0]
            demand(
                alike(extract(moved)[place], rows[0], exact=exact),
                spec,
                f"a row depends on its place in a batch of {n}",
                "Kernels that work on several items at once can do that. Set `cpu_batch=1` in the "
                "spec, or retried clips will not give the bytes of an unbroken run",
            )
    whole, few = extract(items), min(len(items), 4)
    single = [extract(items[i : i + 1])[0] for i in range(few)]
    worst = max(relative(row, whole[i]) for i, row in enumerate(single))
    demand(
        worst <= TOLERANCE,
        spec,
        f"rows depend on the size of the batch: by {worst:.1e}, allowed are {TOLERANCE:.0e}",
        "Compute nothing over the batch; batch norm must stay in inference mode after eval()",
    )


def _check_rebuilt(backbone: Backbone, extract: Extractor, *, weights: str) -> None:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(6)  # another process has another state
        again = backbones.load(backbone, weights=weights, device=extract.device)
    items = _items(extract, 2, seed=4)
    demand(
        alike(again(items), extract(items), exact=extract.device.type == "cpu"),
        extract.spec,
        "built twice with the same weights it gives other rows",
        "`--weights random` draws convolutions, linear layers and batch norm from its seed. Give "
        "other parameters starting values that are always the same, and register constants as "
        "buffers or compute them",
    )


def _check_state_dict(backbone: Backbone, extract: Extractor, net: nn.Module, folder: Path) -> None:
    import torch

    from avfeat.download import sha256_file

    path = folder / "state.pth"
    torch.save(net.state_dict(), path)
    # The file has the network's own keys: a published layout and what leads there are put aside.
    twin: Any = copy.copy(backbone)
    twin.from_published = lambda state: state
    twin.weights_entry = lambda tag: WeightsEntry(f"{backbone.spec.name}.{tag}", (), "", "", "")
    info = WeightsInfo("published", "check", path.name, sha256_file(path), path.as_uri(), path=path)
    advice = "Keep what rows depend on in parameters and persistent buffers, as plain tensors"
    try:
        loaded = backbones.load(twin, weights=info, device=extract.device)
    except WeightsError as error:
        name = backbone.spec.name
        raise AssertionError(
            f"backbone {name!r}: its own state dict cannot be loaded: {error}. {advice}"
        ) from error
    items = _items(extract, 2, seed=5)
    demand(
        alike(loaded(items), extract(items), exact=extract.device.type == "cpu"),
        backbone.spec,
        "its state dict, saved and loaded, gives other rows",
        advice,
    )
