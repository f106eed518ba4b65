"""Leading singular values and vectors of wide matrices against LAPACK's, degenerate ones too."""

from __future__ import annotations

import numpy as np
import pytest

from avfeat.collocate.scores import spectra
from avfeat.collocate.scores.moments import Moments

DIM, K, KEPT = 400, 5, 21


def values(kind: str) -> np.ndarray:
    falling = np.geomspace(1, 1e-9, DIM)
    if kind == "falling":
        return falling
    if kind == "several equal":
        return np.concatenate([falling[:3], np.full(6, falling[3]), falling[9:]])
    if kind == "equal at the cut":
        return np.concatenate([falling[:18], np.full(9, falling[18]), falling[27:]])
    if kind == "rank below k":
        return np.concatenate([[5.0, 3.0, 2.0], np.zeros(DIM - 3)])
    if kind == "all equal":
        return np.ones(DIM)
    if kind == "one above equal ones":
        return np.concatenate([[1e6], np.ones(DIM - 1)])
    return np.linspace(2, 1, DIM)


KINDS = (
    "falling",
    "several equal",
    "equal at the cut",
    "rank below k",
    "all equal",
    "one above equal ones",
    "flat",
)


@pytest.mark.parametrize("kind", KINDS)
def test_wide_matrices_are_decomposed_to_machine_precision(kind: str) -> None:
    wanted = values(kind)
    basis, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))
    rows = np.sqrt(wanted)[:, None] * basis.T
    moments = Moments(DIM)
    moments.add(rows)
    found = spectra.spectrum(moments, k=K, clips=DIM, centred=False)
    gram = rows.T @ rows
    exact = np.linalg.eigvalsh(gram)[::-1]
    assert len(found.values) == KEPT
    np.testing.assert_allclose(found.values, exact[:KEPT], atol=1e-12 * wanted[0])
    residual = gram @ found.vectors - found.vectors * found.values
    assert np.abs(residual).max() <= 1e-12 * wanted[0]
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(KEPT), atol=1e-12)
    again = spectra.spectrum(moments, k=K, clips=DIM, centred=False)
    np.testing.assert_array_equal(found.vectors, again.vectors)


def test_an_eigenvalue_that_iterations_missed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several equal ones: they are looked for in what is left, and then all is done."""
    wanted = values("several equal")
    basis, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((DIM, DIM)))
    gram = (basis * wanted) @ basis.T
    real, full = spectra.eigsh, spectra.eigh
    done: list[str] = []

    def forgetful(matrix: object, *, k: int, **options: object) -> object:
        done.append(f"iterations for {k}")
        if k == 1:
            return real(matrix, k=k, **options)
        exact, vectors = np.linalg.eigh(gram)
        others = [*range(DIM - KEPT - 1, DIM - 4), *range(DIM - 3, DIM)]
        return exact[others], vectors[:, others]

    def whole(*arguments: object, **options: object) -> object:
        done.append("all")
        return full(*arguments, **options)

    monkeypatch.setattr(spectra, "eigsh", forgetful)
    monkeypatch.setattr(spectra, "eigh", whole)
    found, _ = spectra._leading(gram, KEPT)
    assert done == [f"iterations for {KEPT}", "iterations for 1", "all"]
    np.testing.assert_allclose(found, np.linalg.eigvalsh(gram)[-KEPT:], atol=1e-12)
