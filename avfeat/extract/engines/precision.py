"""Precisions: which exist on which device, and what they switch in torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Literal

from avfeat.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "tf32", "bf16", "fp16"]

PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "cpu": ("fp32", "bf16"),
    "cuda": ("fp32", "tf32", "bf16", "fp16"),
}
"""By kind of device."""


def check_precision(precision: str, *, device: str) -> Precision:
    """Return a precision that a device has.

    Parameters
    ----------
    precision
        ``"fp32"`` is IEEE float32 everywhere; ``"tf32"`` multiplies with 10 bits of mantissa;
        ``"bf16"`` and ``"fp16"`` convolve and multiply in 16 bits.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:i"``.

    Raises
    ------
    UsageError
        There is no such precision, or not on such a device; or the processor would have to emulate
        it, slower than float32.
    """
    kind = device.partition(":")[0]
    for known in PRECISIONS["cuda"]:
        if precision == known:
            break
    else:
        raise UsageError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS['cuda'])}")
    if known not in PRECISIONS.get(kind, PRECISIONS["cuda"]):
        raise UsageError(
            f"--precision {known} is for CUDA devices; on {kind} there are "
            f"{' and '.join(PRECISIONS[kind])}"
        )
    if known == "bf16" and kind == "cpu" and not has_bf16():
        raise UsageError(
            "--precision bf16: this processor has no bfloat16 instructions (AVX512_BF16 or AMX) "
            "and would be slower than in float32; use --precision fp32"
        )
    return known


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 numbers."""
    import torch

    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run torch's kernels in a precision, without gradients, and deterministically on CUDA.

    cuDNN's flags, TF32 and autocast are put back at the end.
    """
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if device.type == "cuda":
            tf32 = precision == "tf32"
            stack.enter_context(
                torch.backends.cudnn.flags(
                    enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32
                )
            )
            matmul = torch.backends.cuda.matmul
            stack.callback(setattr, matmul, "allow_tf32", matmul.allow_tf32)
            matmul.allow_tf32 = tf32
        if precision in ("bf16", "fp16"):
            dtype = torch.bfloat16 if precision == "bf16" else torch.float16
            stack.enter_context(torch.autocast(device.type, dtype=dtype))
        yield
