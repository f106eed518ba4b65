"""The check that any backbone should pass, one of avfeat's own or of a plugin package."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avfeat.errors import UnknownNameError, WeightsError
from avfeat.extract import backbones
from avfeat.extract.backbones import (
    AudioInput,
    Backbone,
    BackboneSpec,
    Extractor,
    Geometry,
    VisualInput,
    WeightsInfo,
)
from avfeat.extract.weights.registry import WeightsEntry
from avfeat.testing.clips import AudioTrack, make_clip

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TOLERANCE = 1e-4
"""Relative L2 difference allowed between rows from batches of different sizes, and, off the CPU,
between rows from different places of a batch."""

_FORGETFUL = 1e-3  # relative L2 difference that rows of two pictures have at the least
_RULE = "on-screen"
_LONGEST = 60  # seconds of the synthetic clip
# Of an input's fields those that recipes hold as sampling, or only where there is flow.
_ELSEWHERE = {"fps", "rule", "stream", "flow", "flow_bits"}


def check_backbone(
    backbone: str | Backbone, *, device: str = "cpu", weights: str = "random"
) -> None:
    """Put a backbone through all that avfeat relies on. Prints nothing.

    Checked are, in this order: its spec and name; shape, dtype and finiteness of its rows; that the
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
    _check_spec(found)
    extract = backbones.load(found, weights=weights, device=torch.device(device))
    _check_rows(found, extract)
    _check_batches(extract)
    _check_rebuilt(found, extract, weights=weights)
    with tempfile.TemporaryDirectory(prefix="avfeat-check-") as folder:
        _check_state_dict(found, extract, Path(folder))
        _check_store(found, extract, Path(folder), weights=weights, device=device)


def _demand(holds: bool, spec: BackboneSpec, wrong: str, advice: str) -> None:
    if not holds:
        raise AssertionError(f"backbone {spec.name!r}: {wrong}. {advice}")


def _check_spec(backbone: Backbone) -> None:
    spec = backbone.spec
    _demand(
        re.fullmatch(r"[\w.:-]+", spec.name) is not None,
        spec,
        "its name cannot name a folder",
        "Use letters, digits, _, - and dots for variants",
    )
    try:
        known = backbones.get(spec.name)
    except UnknownNameError:
        known = None
    _demand(
        known is not None and known.family == backbone.family,
        spec,
        "avfeat does not find it by its name",
        "Decorate the class with @register and name its module as an entry point in the group "
        "avfeat.backbones; variants need `axes` and `specify`",
    )
    counts = {
        **{f"row_shape[{i}]": side for i, side in enumerate(spec.row_shape)},
        **{name: getattr(spec, name) for name in ("pool", "cpu_batch", "cuda_batch")},
    }
    for name, count in counts.items():
        whole = isinstance(count, int) and count >= 1
        _demand(whole, spec, f"{name} is {count!r}", "It must be a positive integer")
    recipe = spec.recipe()
    try:
        same = json.loads(json.dumps(recipe, allow_nan=False)) == recipe
    except (TypeError, ValueError):
        same = False
    _demand(
        same,
        spec,
        f"its recipe does not survive JSON: {recipe}",
        "Let `recipe` return dicts with string keys, lists, strings and finite numbers",
    )
    for field, changed in _changes(spec.input):
        _demand(
            dataclasses.replace(spec, input=changed).recipe() != recipe,
            spec,
            f"its recipe stays the same when the input's {field} changes",
            "Let `recipe` name everything that can change a number in a row, or stores of "
            "different features would pass for one",
        )


def _changes(taken: VisualInput | AudioInput) -> Iterator[tuple[str, Any]]:
    """Yield an input's fields, each with the input where that field alone is another."""
    for field in dataclasses.fields(taken):
        value = getattr(taken, field.name)
        other: Any = None
        if isinstance(value, int | float):
            other = value + 1
        elif isinstance(value, Geometry):
            nearest = value.interpolation == "pil-nearest"
            other = dataclasses.replace(
                value, interpolation="pil-bilinear" if nearest else "pil-nearest"
            )
        elif isinstance(value, tuple) and all(isinstance(part, int | float) for part in value):
            other = tuple(part + 0.125 for part in value)
        if other is not None and field.name not in _ELSEWHERE:
            yield field.name, dataclasses.replace(taken, **{field.name: other})


def _items(extract: Extractor, n: int, seed: int) -> Tensor:
    import torch

    from avfeat.extract.weights.random import smooth_items

    return smooth_items(extract.spec.input, n, torch.Generator().manual_seed(seed))


def _check_rows(backbone: Backbone, extract: Extractor) -> None:
    """Look at what the network itself gives, before `Extractor` makes float32 rows of it."""
    import torch

    spec = extract.spec
    n = max(2, spec.batch_size(extract.device.type))
    items = _items(extract, n, seed=1)
    with torch.inference_mode():
        output: Any = extract._net(backbone.to_input(items.to(extract.device)))
    _demand(
        isinstance(output, torch.Tensor),
        spec,
        f"its network gives {type(output).__name__}",
        "Let `build` return a module whose output is one tensor",
    )
    kind = "vectors [N, dim]" if spec.map is None else "maps [N, dim, height, width]"
    wanted = (n, spec.dim) if spec.map is None else (n, spec.dim, *spec.map)
    _demand(
        tuple(output.shape) == wanted,
        spec,
        f"{n} items give {list(output.shape)}, the spec's {kind} are {list(wanted)}",
        "Correct `dim` or `map` of the spec, or where `build` cuts the network",
    )
    _demand(
        output.dtype == torch.float32,
        spec,
        f"its network gives {output.dtype}",
        "Features are torch.float32, and so are computed: see `build` and `to_input`",
    )
    _demand(
        bool(torch.isfinite(output).all()),
        spec,
        "its rows hold NaN or infinity for ordinary items",
        "Look for divisions by zero, logarithms of zero and overflow; check mean, std and white",
    )
    rows = extract(items)
    _demand(
        torch.equal(rows, extract(items)),
        spec,
        "the same items give other rows the second time",
        "Switch off what is random, such as dropout outside of nn.Dropout, and keep no state "
        "between calls",
    )
    least = min(_relative(rows[i], rows[i - 1]) for i in range(1, n))
    _demand(
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
        _demand(
            _alike(extract(beside)[0], rows[0], exact=exact),
            spec,
            "a row depends on the other items of its batch",
            "Compute nothing over the batch; batch norm must stay in inference mode after eval()",
        )
        for place in {n // 2, n - 1}:
            moved = others[:n].clone()
            moved[place] = items[0]
            _demand(
                _alike(extract(moved)[place], rows[0], exact=exact),
                spec,
                f"a row depends on its place in a batch of {n}",
                "Kernels that work on several items at once can do that. Set `cpu_batch=1` in the "
                "spec, or retried clips will not give the bytes of an unbroken run",
            )
    whole, few = extract(items), min(len(items), 4)
    single = [extract(items[i : i + 1])[0] for i in range(few)]
    worst = max(_relative(row, whole[i]) for i, row in enumerate(single))
    _demand(
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
    _demand(
        _alike(again(items), extract(items), exact=extract.device.type == "cpu"),
        extract.spec,
        "built twice with the same weights it gives other rows",
        "`--weights random` draws convolutions, linear layers and batch norm from its seed. Give "
        "other parameters starting values that are always the same, and register constants as "
        "buffers or compute them",
    )


def _check_state_dict(backbone: Backbone, extract: Extractor, folder: Path) -> None:
    import torch

    from avfeat.download import sha256_file

    path = folder / "state.pth"
    torch.save(extract._net.state_dict(), path)
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
    _demand(
        _alike(loaded(items), extract(items), exact=extract.device.type == "cpu"),
        backbone.spec,
        "its state dict, saved and loaded, gives other rows",
        advice,
    )


def _check_store(
    backbone: Backbone, extract: Extractor, folder: Path, *, weights: str, device: str
) -> None:
    from avfeat.extract import session
    from avfeat.extract.plan import Settings
    from avfeat.stores.reader import open_store

    spec = backbone.spec
    clip = _make_clip(spec, folder / "media")
    manifest = session.load_manifest("folder", data=clip.parent, annotations=None)
    settings = Settings(out=str(folder / "features"), device=device, sampling=_RULE)
    with session.open_plan(manifest, [backbone], settings, weights=weights) as plan:
        (task,) = plan.tasks
        report = session.execute(plan)
    crash = "".join(report.crashes.values())
    store = open_store(task.url, allow_random=True)
    outcome = store.outcome(clip.name)
    _demand(
        outcome.status == "ok",
        spec,
        f"extracting a synthetic clip ends as {outcome.status}({outcome.kind}): {outcome.message}",
        crash or "Look at its input and at `rows` of the spec",
    )
    rows, times = _directly(spec, extract, task.batch_size, manifest, device)
    stored = store[clip.name]
    (listed,) = manifest.clips
    _demand(
        len(rows) == spec.rows(listed.seconds),
        spec,
        f"{listed.seconds:g} s give {len(rows)} rows, its spec says {spec.rows(listed.seconds)}",
        "Let `items` of its input count the complete items of a stream",
    )
    _demand(
        stored.shape == (len(rows), *spec.row_shape) and stored.dtype == np.float32,
        spec,
        f"the store holds {stored.dtype} {list(stored.shape)}, not {len(rows)} rows of "
        f"{list(spec.row_shape)}",
        "Correct `dim`, `map` or `pool` of the spec",
    )
    _demand(
        _alike(stored, rows, exact=extract.device.type == "cpu"),
        spec,
        "rows read back from a store are not those computed directly",
        "Keep no state between calls",
    )
    stamps = store.times(clip.name)
    _demand(
        bool(np.all(np.diff(stamps) > 0)) and np.array_equal(stamps, times),
        spec,
        f"the times of its rows do not ascend: {stamps.tolist()}",
        "Check stride and hop of its input",
    )


def _make_clip(spec: BackboneSpec, folder: Path) -> Path:
    """Write a clip with picture and sound that is long enough for two rows."""
    seconds = next((s for s in range(1, _LONGEST + 1) if spec.rows(float(s)) >= 2), None)
    _demand(
        seconds is not None,
        spec,
        f"{_LONGEST} s of media give fewer than two rows",
        "Check frames, stride and fps, or window and hop, of its input",
    )
    assert seconds is not None
    folder.mkdir()
    fps = spec.input.fps if isinstance(spec.input, VisualInput) else 8.0
    return make_clip(
        folder / "clip.mkv",
        # A frame of its own for each sample, so that times ascend.
        fps=max(30, math.ceil(fps)),
        duration=float(seconds),
        size=(160, 120),
        audio=AudioTrack([(0.0, seconds, 440.0, 0.4), (0.5, seconds, 97.0, 0.3)], codec="flac"),
    )


def _directly(
    spec: BackboneSpec, extract: Extractor, batch_size: int, manifest: Any, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the rows of the one clip and their times without engine, batcher and store."""
    import torch

    from avfeat.extract.decode import Chunk, ClipJob, decode

    (clip,) = manifest.clips
    path = manifest.media[clip.id]
    chunks: list[Chunk] = []
    decode(ClipJob(clip, path, path.name, (spec,), _RULE, device=device), chunks.append)
    items = torch.from_numpy(np.concatenate([chunk.items for chunk in chunks]))
    times = np.concatenate([chunk.times for chunk in chunks])
    batches = []
    for first in range(0, len(items), batch_size):
        batch = items[first : first + batch_size]
        padding = torch.zeros((batch_size - len(batch), *batch.shape[1:]), dtype=batch.dtype)
        batches.append(extract(torch.cat([batch, padding]))[: len(batch)].numpy())
    rows = np.concatenate(batches)
    if spec.pool == 1:
        return rows, times
    count = len(rows) // spec.pool
    groups = rows[: count * spec.pool].reshape(count, spec.pool, *spec.row_shape)
    means = groups.mean(axis=1, dtype=np.float64).astype(np.float32)
    return means, times[: count * spec.pool].reshape(count, spec.pool).mean(axis=1)


def _alike(found: Any, expected: Any, *, exact: bool) -> bool:
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return False
    return np.array_equal(found, expected) if exact else _relative(found, expected) <= TOLERANCE


def _relative(found: torch.Tensor | np.ndarray, expected: torch.Tensor | np.ndarray) -> float:
    """Length of the difference by length of the longer; 0 where both are nothing."""
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    length = max(np.linalg.norm(a), np.linalg.norm(b))
    return float(np.linalg.norm(a - b) / length) if length else 0.0
