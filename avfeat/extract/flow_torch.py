"""TV-L1 optical flow of many pairs of pictures at once, in plain torch operations.

The method is that of Zach, Pock and Bischof ("A Duality Based Approach for Realtime TV-L1 Optical
Flow", DAGM 2007), in the form that Sánchez, Meinhardt-Llopis and Facciolo describe step by step
("TV-L1 Optical Flow Estimation", IPOL 2013, doi:10.5201/ipol.2013.26): the names below are theirs.
Where they leave a choice, this follows what OpenCV's ``DualTVL1OpticalFlow`` computes, so that
either may stand for the other: a pyramid by plain bilinear resizing, a cubic warp with zeros
outside, a 5 x 5 median filter of the flow before every block of inner iterations, and dual
variables that live on from one warp to the next.

Nothing here sums or multiplies in an order that depends on the number of pairs or of threads: a
pair's flow has the same bits in every batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from avfeat.extract.flow import MIN_SIDE


@dataclass(frozen=True)
class TVL1:
    """Parameters of the method; the defaults are OpenCV's, with which published features were made.

    Attributes
    ----------
    tau
        Time step of the dual variables.
    lambda_
        Weight of the data term, for grey values from 0 to 255.
    theta
        Tightness of the coupling between the flow and its auxiliary field.
    scales
        Levels of the pyramid at most; none is smaller than 16 pixels.
    warps
        Linearisations per level.
    epsilon
        A warp is done when the flow's root mean square change in an iteration is at most this, in
        pixels.
    inner, outer
        At most ``outer`` blocks of ``inner`` iterations per warp; a block starts with the median.
    step
        Size of a level relative to the next finer one.
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    scales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner: int = 30
    outer: int = 10
    step: float = 0.8


# Squared changes are summed as whole multiples of this many square pixels. Sums of whole numbers
# are exact, hence the same in every order; where they get too large for that, far above any
# threshold, order does not matter.
_QUANTUM = 2.0**-24
# Stands for the squared gradient where that vanishes: the data term cannot move such a pixel.
_FLAT = 1e-20


@torch.no_grad()
def tvl1(first: Tensor, second: Tensor, parameters: TVL1 | None = None) -> Tensor:
    """Optical flow from the first picture of each pair to the second.

    Parameters
    ----------
    first, second
        uint8 or float32 ``[n, H, W]`` on any device, grey values from 0 to 255; sides of at least
        16 pixels.
    parameters
        OpenCV's defaults if None.

    Returns
    -------
    Tensor
        float32 ``[n, 2, H, W]`` on the same device, in pixels, x then y: what is at (x, y) in the
        first picture is at (x, y) + flow in the second. The same bits whatever else is in the batch
        and however many threads there are.

    Raises
    ------
    ValueError
        The shapes differ, are not ``[n, H, W]``, or a side is shorter than 16.
    """
    parameters = parameters or TVL1()
    if first.shape != second.shape or first.ndim != 3 or min(first.shape[1:]) < MIN_SIDE:
        raise ValueError(
            f"pairs are two times [n, H, W] with sides of at least {MIN_SIDE}, "
            f"got {list(first.shape)} and {list(second.shape)}"
        )
    levels = [torch.stack((first, second), dim=1).float()]
    while len(levels) < parameters.scales:
        height, width = (round(side * parameters.step) for side in levels[-1].shape[-2:])
        if min(height, width) < MIN_SIDE:
            break
        levels.append(_resized(levels[-1], height, width, 1 / parameters.step))
    u = torch.zeros_like(levels[-1])
    for level in reversed(levels):
        if u.shape != level.shape:
            u = _resized(u, *level.shape[-2:]) * (1 / parameters.step)
        u = _one_level(level[:, 0], level[:, 1], u, parameters)
    return u


def _one_level(i0: Tensor, i1: Tensor, u: Tensor, parameters: TVL1) -> Tensor:
    """Refine the flow at one level of the pyramid: ``[n, h, w]`` twice, and ``[n, 2, h, w]``."""
    channels = torch.cat((i1[:, None], _centred_gradient(i1)), dim=1)
    # The dual variables, times theta: [n, component of the flow, direction, h, w].
    p = u.new_zeros((len(u), 2, *u.shape[1:]))
    for _ in range(parameters.warps):
        warped = _warped(channels, u)
        i1w, gradient = warped[:, 0], warped[:, 1:]
        rho = i1w - (gradient * u).sum(1) - i0
        # The step that zeroes the linearised residual is minus residual / |gradient|^2 along the
        # gradient. Dividing all by that beforehand leaves an affine function of u.
        slope = gradient.square().sum(1).clamp_(min=_FLAT).reciprocal_().neg_()
        warp = _Warp(gradient, gradient * slope[:, None], rho * slope)
        u, p = _solve(warp, u, p, parameters)
    return u


@dataclass(frozen=True)
class _Warp:
    """The data term of a warp: the step along ``gradient`` is ``offset + slope · u``, clamped."""

    gradient: Tensor  # [n, 2, h, w]
    slope: Tensor  # [n, 2, h, w]
    offset: Tensor  # [n, h, w]

    def of(self, pairs: Tensor) -> _Warp:
        return _Warp(self.gradient[pairs], self.slope[pairs], self.offset[pairs])


def _solve(warp: _Warp, u: Tensor, p: Tensor, parameters: TVL1) -> tuple[Tensor, Tensor]:
    """Iterate until each pair has converged; those that have leave the batch."""
    limit = parameters.epsilon**2 * u.shape[-2] * u.shape[-1] / _QUANTUM
    final_u, final_p = u, p
    pairs: Tensor | None = None  # which of all pairs are still in the batch; None for all
    for _ in range(parameters.outer):
        u = median_5x5(u)
        for _ in range(parameters.inner):
            change = _iterate(warp, u, p, parameters)
            going = change > limit
            if bool(going.all()):
                continue
            # Fancy indexing copies, so what is written here is not changed any more.
            done = (~going).nonzero()[:, 0]
            if pairs is None:
                pairs = torch.arange(len(u), device=u.device)
                final_u, final_p = torch.empty_like(u), torch.empty_like(p)
            final_u[pairs[done]], final_p[pairs[done]] = u[done], p[done]
            rest = going.nonzero()[:, 0]
            if len(rest) == 0:
                return final_u, final_p
            pairs, u, p, warp = pairs[rest], u[rest], p[rest], warp.of(rest)
    if pairs is None:
        return u, p
    final_u[pairs], final_p[pairs] = u, p
    return final_u, final_p


def _iterate(warp: _Warp, u: Tensor, p: Tensor, parameters: TVL1) -> Tensor:
    """One primal-dual step of u and p, in place.

    Only single operations that IEEE 754 rounds in one way: a fused one may be rounded differently
    in the vectors of a picture's middle and the scalars of its end.

    Returns
    -------
    Tensor
        float64 ``[n]``, the sum of the flow's squared changes in quanta.
    """
    bound = parameters.lambda_ * parameters.theta
    # v - u, where v solves the data term point by point ...
    product = warp.slope * u
    along = product[:, 0].add_(product[:, 1]).add_(warp.offset).clamp_(-bound, bound)
    change = warp.gradient * along[:, None]
    # ... and to it the divergence of p, by backward differences.
    change += p[:, :, 0]
    change += p[:, :, 1]
    change[..., 1:] -= p[:, :, 0, :, :-1]
    change[..., 1:, :] -= p[:, :, 1, :-1]
    u += change
    # p, by forward differences of the new u; they are zero on the last row and column.
    gradient = torch.zeros_like(p)
    torch.sub(u[..., 1:], u[..., :-1], out=gradient[:, :, 0, :, :-1])
    torch.sub(u[..., 1:, :], u[..., :-1, :], out=gradient[:, :, 1, :-1])
    gradient *= parameters.tau
    p += gradient
    square = gradient.square_()
    norm = square[:, :, 0].add_(square[:, :, 1]).sqrt_().mul_(1 / parameters.theta).add_(1)
    p /= norm[:, :, None]
    quanta = change.square_().mul_(1 / _QUANTUM).round_()
    return quanta.sum((1, 2, 3), dtype=torch.float64)


def _centred_gradient(image: Tensor) -> Tensor:
    """Half the difference of the neighbours in x and y: ``[n, h, w]`` to ``[n, 2, h, w]``.

    At the edges a pixel is its own neighbour.
    """
    padded = F.pad(image[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return torch.stack((dx, dy), dim=1).mul_(0.5)


def _warped(channels: Tensor, u: Tensor) -> Tensor:
    """Pictures ``[n, c, h, w]`` at (x, y) + u, by cubic convolution, zero outside.

    `F.grid_sample` wants positions relative to the picture's size. In a picture whose sides are
    powers of two they can be given without a rounding error for whole pixels, so that no motion
    leaves the picture exactly as it is.
    """
    height, width = u.shape[-2:]
    sides = [1 << (side - 1).bit_length() for side in (width, height)]
    padded = F.pad(channels, (0, sides[0] - width, 0, sides[1] - height))
    x = u[:, 0] + torch.arange(width, device=u.device)
    y = u[:, 1] + torch.arange(height, device=u.device)[:, None]
    grid = torch.stack(
        [(at * 2).add_(1).div_(side).sub_(1) for at, side in zip((x, y), sides, strict=True)], -1
    )
    # Its cubic kernel has a = -0.75, as OpenCV's has.
    return F.grid_sample(padded, grid, "bicubic", padding_mode="zeros", align_corners=False)


def _resized(maps: Tensor, height: int, width: int, scale: float | None = None) -> Tensor:
    """Bilinear resize without antialiasing of ``[..., h, w]``.

    `F.interpolate` rounds sizes down and positions to float32; OpenCV does neither.

    Parameters
    ----------
    scale
        Old pixels per new pixel; by default the ratio of the sides. The pyramid goes by its exact
        step, though its sides are rounded.
    """
    for dim, side in ((-1, width), (-2, height)):
        old = maps.shape[dim]
        at = torch.arange(side, dtype=torch.float64).add_(0.5).mul_(scale or old / side).sub_(0.5)
        at.clamp_(0, old - 1)
        below = at.floor()
        weight = (at - below).float().to(maps.device)
        index = below.long().to(maps.device)
        if dim == -2:
            weight = weight[:, None]
        upper = maps.index_select(dim, (index + 1).clamp_(max=old - 1))
        maps = maps.index_select(dim, index).mul_(1 - weight).add_(upper.mul_(weight))
    return maps


_Exchanges = tuple[tuple[int, int], ...]

# Exchanges (a, b): the smaller goes to a, the larger to b. Sorts five.
_SORT_5: _Exchanges = ((0, 3), (1, 4), (0, 2), (1, 3), (0, 1), (2, 4), (1, 2), (3, 4), (2, 3))
# Brings the median of 25, of which wires c, 5 + c, ..., 20 + c are sorted for each column c, to
# wire 12: the rows' sortings, then a sorting of the 13 that can still be the median, without every
# exchange that is not needed. By the 0-1 principle it is right for all numbers because it is for
# each of the 6^5 ways to fill sorted columns with zeros and ones; a test goes through them.
# fmt: off
_MEDIAN_OF_COLUMNS: _Exchanges = (
    (0, 3), (1, 3), (0, 1), (2, 4), (1, 2), (3, 4), (2, 3), (5, 8), (5, 7), (6, 8), (5, 6), (7, 9),
    (6, 7), (8, 9), (7, 8), (10, 13), (11, 14), (10, 12), (11, 13), (10, 11), (12, 14), (11, 12),
    (13, 14), (15, 18), (16, 19), (15, 17), (15, 16), (16, 17), (18, 19), (17, 18), (20, 23),
    (21, 24), (20, 22), (21, 23), (20, 21), (22, 24), (21, 22), (3, 7), (11, 15), (13, 20), (12, 4),
    (17, 16), (7, 15), (13, 12), (20, 4), (17, 8), (16, 9), (20, 12), (15, 20), (8, 21), (20, 12),
    (16, 8), (13, 17), (20, 16), (15, 20), (12, 17), (20, 12),
)
# fmt: on
_MEDIAN = 12


def median_5x5(maps: Tensor) -> Tensor:
    """Median of the 25 values around each value, those at the edges repeated outwards.

    Each value's median is exact, as of OpenCV's ``medianBlur(..., 5)``; NaN makes NaN.

    Parameters
    ----------
    maps
        Floating point ``[N, C, H, W]``.

    Returns
    -------
    Tensor
        A new tensor of the same shape and type.
    """
    padded = F.pad(maps, (2, 2, 2, 2), mode="replicate")
    height, width = maps.shape[-2:]
    # Columns are sorted once for all the windows that they are part of.
    rows = [padded[..., y : y + height, :] for y in range(5)]
    for a, b in _SORT_5:
        rows[a], rows[b] = torch.minimum(rows[a], rows[b]), torch.maximum(rows[a], rows[b])
    wires: list[Tensor | None] = [row[..., x : x + width] for row in rows for x in range(5)]
    del padded, rows
    for a, b, low, high in _STEPS:
        first, second = wires[a], wires[b]
        assert first is not None and second is not None
        # What nobody reads any more is not computed, and is let go.
        wires[a] = torch.minimum(first, second) if low else None
        wires[b] = torch.maximum(first, second) if high else None
    median = wires[_MEDIAN]
    assert median is not None
    return median


def _steps(exchanges: _Exchanges, result: int) -> list[tuple[int, int, bool, bool]]:
    """Exchanges, and whether the smaller and the larger value of each matter for the result."""
    steps = []
    read = {result}
    for a, b in reversed(exchanges):
        steps.append((a, b, a in read, b in read))
        read |= {a, b}
    return steps[::-1]


_STEPS = _steps(_MEDIAN_OF_COLUMNS, _MEDIAN)
