"""The contract of a backbone: a spec, a network cut at its layer, and items to network input."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from avfeat.errors import UnknownNameError, UsageError
from avfeat.extract.backbones.spec import AudioInput, BackboneSpec, VisualInput
from avfeat.extract.weights.registry import WeightsEntry, entry

if TYPE_CHECKING:
    from torch import Tensor, nn

SECOND = "second"
"""Option of every image network: the mean over each second's frames."""


class Backbone(ABC):
    """A feature extractor, as one class per file.

    Subclasses set `spec` and write `build`; torch is imported inside the methods, so that listing
    backbones stays light. A backbone never sees a file, a clip or a store.

    A recipe that differs in a named way is a variant: ``resnet152.map``, ``openl3.music.mel128``.
    Subclasses list the options in `axes` and give the spec of each choice in `specify`.

    Attributes
    ----------
    spec
        Of this variant.
    axes
        Alternatives of which one each can be chosen, the default first; ``""`` stands for a default
        that has no name.
    decided_by
        What decides on the unnamed default of each of `axes` in `adapted`: ``"data set"``,
        ``"device"``, or ``""`` where nothing does. Empty: nothing on any.
    converts
        Whether OpenVINO is known to run the network (True), or not to (False); None has it tried.
    libraries
        Distributions, as pip names them, that rows depend on and whose version the recipe is to
        name, beyond `avfeat.manifests.recipe.LIBRARIES` of the modality and the backbone's own
        `distribution`.
    distribution
        Distribution that brought the class as a plugin; None for avfeat's own and for classes that
        were registered at run time.
    chosen
        The choice on each axis.
    pooled
        Whether the rows of each second are averaged.
    tag
        Tag of the weights to use, the first of the spec's by default.

    Examples
    --------
    >>> from avfeat.extract.backbones import get
    >>> get("resnet152").spec.dim
    2048
    >>> get("resnet152.second").spec.rows(10.0)
    10
    """

    spec: BackboneSpec
    axes: ClassVar[tuple[tuple[str, ...], ...]] = ()
    decided_by: ClassVar[tuple[str, ...]] = ()
    converts: ClassVar[bool | None] = None
    libraries: ClassVar[tuple[str, ...]] = ()
    distribution: str | None = None

    def __init__(self) -> None:
        """Take the defaults on every axis."""
        self.chosen: tuple[str, ...] = tuple(axis[0] for axis in self.axes)
        self.pooled = False
        self.tag: str | None = None

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the network up to its feature layer, with any weights.

        It maps what `to_input` gives to rows ``[N, dim]``, or to maps ``[N, dim, height, width]``.
        Its state-dict keys are those of the published file, so that weights load without renaming.
        """

    def specify(self, chosen: tuple[str, ...]) -> BackboneSpec:
        """Return the spec of a choice on each of `axes`; its name does not matter."""
        raise NotImplementedError(f"{type(self).__name__} has axes and no specify")

    def canonical(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Return the one choice, of all that give the same recipe, that names and stores go by."""
        return chosen

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename and reshape the tensors of a published file onto the keys of `build`.

        Called with whatever a file of `weights_entry` holds, in the file's order. Layouts are told
        apart by their keys. The keys are as they should be unless this is overridden.
        """
        return state

    def to_input(self, items: Tensor) -> Tensor:
        """Turn a batch of items, already on the device, into the network's float32 input.

        Parameters
        ----------
        items
            uint8 ``[N, H, W, 3]`` or ``[N, T, H, W, 3]``, or float32 waveforms ``[N, window]``.

        Returns
        -------
        Tensor
            ``[N, 3, H, W]`` or ``[N, 3, T, H, W]``, normalised with the spec's mean and std; the
            waveforms themselves for audio, where networks with a front end override this.
        """
        wanted = self.spec.input
        if isinstance(wanted, AudioInput):
            return items
        # Plain contiguous layout: channels-last kernels give other last bits.
        planes = items.movedim(-1, 1).contiguous().float()
        if wanted.white == 1.0:
            planes = planes.div_(255)
        if wanted.colour == "BGR":
            planes = planes.flip(1)
        shape = (1, 3, *[1] * (planes.ndim - 2))
        mean = planes.new_tensor(wanted.mean).reshape(shape)
        std = planes.new_tensor(wanted.std).reshape(shape)
        return planes.sub_(mean).div_(std)

    def weights_entry(self, tag: str) -> WeightsEntry:
        """Say where the weights called ``tag`` come from.

        Looked up in avfeat's own weights/registry.yaml; a plugin package overrides this.
        """
        return entry(f"{self.family}.{tag}")

    def adapted(self, *, untrimmed: bool, device: str) -> Backbone:
        """Return the variant for a kind of data set and of device; itself, as most do.

        The name stays: what differs is in the recipe. `decided_by` says on what it depends.

        Parameters
        ----------
        untrimmed
            Whether the clips are videos of any length, not cut to ten seconds.
        device
            ``"cpu"`` or ``"cuda"``.
        """
        return self

    def renamed(self, spec: BackboneSpec) -> Backbone:
        """Return a copy with this spec under the name it has."""
        twin = copy.copy(self)
        twin.spec = replace(spec, name=self.spec.name)
        return twin

    @property
    def family(self) -> str:
        """Name without options."""
        return type(self).spec.name

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions whose version the recipe names beyond those of every recipe."""
        own = (self.distribution,) if self.distribution is not None else ()
        return (*self.spec.input.libraries, *self.libraries, *own)

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """`axes`, and that of pooling over seconds where rows are one per frame."""
        return (*self.axes, ("", SECOND)) if self._poolable() else self.axes

    @property
    def options(self) -> tuple[str, ...]:
        """Every option that can be named, defaults included."""
        return tuple(option for axis in self.alternatives for option in axis if option)

    def variant(self, options: Collection[str]) -> Backbone:
        """Return the variant with these options, or weights tag, chosen beside the ones it has.

        Raises
        ------
        UnknownNameError
            There is no such option or tag.
        UsageError
            Two of them exclude each other.
        """
        twin = copy.copy(self)
        chosen = list(self.chosen)
        taken: dict[int, str] = {}
        for option in options:
            places = [i for i, axis in enumerate(self.axes) if option and option in axis]
            if places:
                if taken.setdefault(places[0], option) != option:
                    raise UsageError(
                        f"{self.family}: {taken[places[0]]} and {option} exclude each other"
                    )
                chosen[places[0]] = option
            elif option == SECOND and self._poolable():
                twin.pooled = True
            elif option in self.spec.weights:
                twin.tag = option
            else:
                known = [*self.options, *self.spec.weights]
                raise UnknownNameError(f"option of {self.family}", option, known)
        twin.chosen = self.canonical(tuple(chosen))
        spec = self.specify(twin.chosen) if self.axes else type(self).spec
        named = [c for c, axis in zip(twin.chosen, self.axes, strict=True) if c != axis[0]]
        if twin.pooled:
            assert isinstance(spec.input, VisualInput)
            spec = replace(spec, pool=round(spec.input.fps))
            named.append(SECOND)
        if twin.tag is not None and twin.tag not in spec.weights:
            raise UsageError(f"weights {twin.tag} do not fit {self.family}.{'.'.join(named)}")
        if twin.tag is not None and twin.tag != spec.weights[0]:
            named.append(twin.tag)
        twin.spec = replace(spec, name=".".join([self.family, *named]))
        return twin

    def _poolable(self) -> bool:
        """Whether rows are one per frame, so that a second's rows can be averaged."""
        taken = type(self).spec.input
        single = isinstance(taken, VisualInput) and taken.frames == 1
        return single and type(self).spec.pool == 1
