"""VGGish's PCA and quantisation against torchvggish, which rounds, and a numpy formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvggish.torchvggish import Postprocessor

from avfeat.errors import WeightsError
from avfeat.extract.backbones.nets.vggish_pca import VGGishPCA, pca_state

# Values this near to a step can fall on both sides of it in float32.
NEAR = 1e-3


@pytest.fixture(scope="module")
def parameters() -> dict[str, np.ndarray]:
    """A whitening transform, as the published arrays: float32 [128, 128] and [128]."""
    rng = np.random.default_rng(8)
    rotation, _ = np.linalg.qr(rng.normal(size=(128, 128)))
    scales = np.geomspace(4.0, 0.5, 128)[:, None]
    return {
        "pca_eigen_vectors": (scales * rotation).astype(np.float32),
        "pca_means": rng.normal(0.0, 0.3, 128).astype(np.float32),
    }


@pytest.fixture(scope="module")
def net(parameters: dict[str, np.ndarray]) -> VGGishPCA:
    net = VGGishPCA()
    net.load_state_dict(pca_state(parameters))
    return net


@pytest.fixture(scope="module")
def embeddings() -> Tensor:
    return torch.from_numpy(np.random.default_rng(9).normal(0, 0.7, (200, 128)).astype(np.float32))


def steps(parameters: dict[str, np.ndarray], embeddings: Tensor) -> np.ndarray:
    """The numbers before their fraction goes, in double precision."""
    centred = embeddings.numpy().astype(np.float64) - parameters["pca_means"]
    whitened = centred @ parameters["pca_eigen_vectors"].astype(np.float64).T
    found: np.ndarray = (np.clip(whitened, -2, 2) + 2) * 255 / 4
    return found


def test_bf16_around_it_changes_no_level(net: VGGishPCA, embeddings: Tensor) -> None:
    """Of the same embeddings: 8 significant bits would not tell 256 levels apart."""
    halves = embeddings.bfloat16()
    expected = net(halves.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(halves)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_levels_are_the_formulas(
    net: VGGishPCA, parameters: dict[str, np.ndarray], embeddings: Tensor
) -> None:
    ours = net(embeddings)
    assert ours.dtype == torch.float32 and ours.shape == (200, 128)
    exact = steps(parameters, embeddings)
    clear = (np.abs(exact - np.round(exact)) > NEAR) | (exact == 0) | (exact == 255)
    assert clear.mean() > 0.99
    # astype(np.uint8) is what TensorFlow's code does.
    np.testing.assert_array_equal(ours.numpy()[clear], exact.astype(np.uint8)[clear])
    assert {0.0, 255.0} <= set(ours.unique().tolist())


def test_torchvggish_rounds_where_tensorflow_truncates(
    net: VGGishPCA, parameters: dict[str, np.ndarray], embeddings: Tensor
) -> None:
    oracle = object.__new__(Postprocessor)  # its constructor downloads the parameters
    oracle._pca_matrix = torch.from_numpy(parameters["pca_eigen_vectors"])
    oracle._pca_means = torch.from_numpy(parameters["pca_means"]).reshape(-1, 1)

    rounded, ours = oracle.postprocess(embeddings).numpy(), net(embeddings).numpy()

    exact = steps(parameters, embeddings)
    fraction = exact - np.floor(exact)
    clear = np.minimum(np.abs(fraction - 0.5), np.minimum(fraction, 1 - fraction)) > NEAR
    clear |= (exact == 0) | (exact == 255)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal((rounded - ours)[clear], (fraction > 0.5)[clear])
    inner = (exact > 0) & (exact < 255)
    assert 0.4 < np.mean((rounded != ours)[inner]) < 0.6


def test_without_parameters_it_is_the_identity() -> None:
    row = torch.zeros(1, 128)
    row[0, :8] = torch.tensor([-9.0, -2.0, -1.99, 0.0, 1.0, 1.999, 2.0, 9.0])
    found = VGGishPCA()(row)[0, :9]
    assert found.tolist() == [0, 0, 0, 127, 191, 254, 255, 255, 127]
    assert VGGishPCA()(torch.full((1, 128), torch.nan)).isnan().all()


def test_both_published_layouts_load(parameters: dict[str, np.ndarray]) -> None:
    column = {
        "pca_eigen_vectors": torch.from_numpy(parameters["pca_eigen_vectors"]),
        "pca_means": torch.from_numpy(parameters["pca_means"]).reshape(128, 1),
    }
    for name, value in pca_state(parameters).items():
        assert torch.equal(value, column[name])
    for name, value in pca_state(column).items():
        assert torch.equal(value, column[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pca_means": np.zeros(127)}, r"pca_means is \[127\] instead of \[128, 1\]"),
        ({"pca_eigen_vectors": np.zeros(128)}, r"pca_eigen_vectors is \[128\] instead of"),
        ({"pca_means": None}, "no array 'pca_means' among pca_eigen_vectors"),
    ],
)
def test_other_files_are_refused(
    parameters: dict[str, np.ndarray], change: dict[str, np.ndarray | None], message: str
) -> None:
    arrays = {k: v for k, v in {**parameters, **change}.items() if v is not None}
    with pytest.raises(WeightsError, match=message):
        pca_state(arrays)
