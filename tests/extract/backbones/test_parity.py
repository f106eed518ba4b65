"""Every backbone against the code that published features were made with.

No trained weights are needed: both sides get the same calibrated random weights, ours through the
real way from a file in the published layout. Calibration matters. With a framework's initial
weights a wrong padding changes SENet's output by 4e-5, with these by a quarter.

`make parity` runs all of it, TensorFlow's side included, and keeps the numbers in docs/parity.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from parity_cases import (
    CASES,
    CPU,
    SENSITIVITY,
    SLOW,
    Case,
    Loaded,
    calibrated,
    directed,
    loaded_from_file,
    noisy,
)
from parity_published import gzipped, published
from parity_record import record_network, record_rounding, relative
from parity_tensorflow import QUESTIONS, ask
from torch import Tensor

from avfeat.extract import backbones
from avfeat.extract.weights.random import smooth_items

# pretrainedmodels calls torchvision the way of 2019.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning"),
]


@pytest.fixture(scope="module")
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loaded]:
    """One network at a time: tests are grouped by it."""
    name: str = request.param
    with loaded_from_file(name, tmp_path_factory.mktemp("published")) as found:
        yield found


def parameters(*names: str, slow: frozenset[str] = frozenset()) -> list[object]:
    return [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW | slow else [])
        for name in names
    ]


# No ReLU follows their last layer.
LINEAR = ("openl3", "pre_activation")


@pytest.mark.parametrize(
    ("loaded", "variant"),
    [
        pytest.param(
            *(name, variant),
            id=variant,
            marks=[pytest.mark.slow] if name in SLOW or variant in case.slow else [],
        )
        for name, case in CASES.items()
        for variant in case.oracles
    ],
    indirect=["loaded"],
    scope="module",
)
def test_rows_equal_the_oracles(loaded: Loaded, variant: str) -> None:
    """One row, as each takes seconds; batches are the subject of another test."""
    case, backbone = CASES[loaded.name], backbones.get(variant)
    own = variant == loaded.name
    extract = loaded.extract if own else backbones.load(variant, device=CPU)
    items = smooth_items(backbone.spec.input, 1, torch.Generator().manual_seed(21))

    rows = extract(items)

    assert (rows.dtype, tuple(rows.shape)) == (torch.float32, (1, *backbone.spec.row_shape))
    inputs = backbone.to_input(items)
    varied = changed(case, backbone, calibrated(loaded.name) if case.directed else {}, inputs)
    moved = None
    for oracle in case.oracles[variant]:
        network = oracle.build(loaded.tensors)
        with torch.inference_mode():
            expected = network(inputs)
            # That of one oracle will do: it is the network's, not the implementation's.
            moved = network(varied) if moved is None else moved
        assert expected.shape == rows.shape
        error, sensitivity = record_network(
            variant, oracle.name, rows, expected, moved, tolerance=case.tolerance
        )
        assert error <= case.tolerance
        # A network that forgets its input would agree with any other.
        assert sensitivity > SENSITIVITY
    if not any(name in variant for name in LINEAR):
        assert rows.min() >= 0


def changed(
    case: Case, backbone: backbones.Backbone, state: dict[str, Tensor], inputs: Tensor
) -> Tensor:
    """Inputs with a thousandth of noise, for a network with these weights."""
    if not case.directed:
        return noisy(inputs)
    net = backbone.build().eval()
    net.load_state_dict(state)
    return directed(getattr(net, "net", net), inputs)  # no gradient passes the steps of a PCA


# Options that build the same network as without them. Of what goes into it, and of when, other
# tests judge: test_parity_inputs.py, and tests/extract/ for grids, seconds and flow.
SAME_NETWORK = {
    "i3d": {"centred", "chunks", "tvl1_opencv", "tvl1_torch", "8bit"},
    "i3d_flow": {"centred", "chunks", "tvl1_opencv", "tvl1_torch", "8bit"},
    "i3d_rgb": {"centred", "chunks"},
    "openl3": {"music", "frontend_b", "frontend_c", "hop_500ms", "hop_100ms", "16k"},
    "openl3_image": {"music", "mel128", "linear"},
    "vggish": {"tf_frames"},
}


def test_every_option_of_every_backbone_has_an_oracle() -> None:
    # Other tests register backbones of their own.
    ours = [one for one in backbones.select("all") if type(one).__module__.startswith("avfeat.")]
    compared = [backbones.get(variant) for case in CASES.values() for variant in case.oracles]
    for backbone in ours:
        family = backbone.family
        found = [one for one in compared if one.family == family]
        assert found, family
        for place, (default, *others) in enumerate(backbone.axes):
            judged = {one.chosen[place] for one in found} | SAME_NETWORK.get(family, set())
            assert set(others) <= judged, (family, default)


def test_options_said_to_leave_the_network_alone_do() -> None:
    for family, options in SAME_NETWORK.items():
        plain = backbones.get(family)
        for option in sorted(options):
            variant = backbones.get(f"{family}.{option}")
            with torch.device("meta"):
                net, expected = variant.build(), plain.build()
            assert str(net) == str(expected), variant.spec.name
            cut = [(s.layer, s.dim, s.map, s.parameters) for s in (variant.spec, plain.spec)]
            assert cut[0] == cut[1], variant.spec.name


MEANS = ("resnet152", "senet154", "polynet")


@pytest.mark.parametrize(
    "loaded",
    parameters(*MEANS, slow=frozenset({"senet154", "polynet"})),
    indirect=True,
    scope="module",
)
def test_the_mean_of_a_map_is_the_pooled_row(loaded: Loaded) -> None:
    items = loaded.items(1, seed=25)
    maps = backbones.load(f"{loaded.name}.map", device=CPU)(items)
    assert relative(maps.mean((1, 2)), loaded.extract(items)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("loaded", ["openl3_image"], indirect=True, scope="module")
def test_the_maximum_of_openl3s_map_is_its_row(loaded: Loaded) -> None:
    items = loaded.items(1, seed=25)
    maps = backbones.load("openl3_image.map", device=CPU)(items)
    assert relative(maps.amax((1, 2)), loaded.extract(items)) <= 1e-6


@pytest.mark.parametrize("loaded", ["vggish"], indirect=True, scope="module")
def test_vggishs_last_relu_is_all_that_pre_activation_leaves_out(loaded: Loaded) -> None:
    items = loaded.items(2, seed=25)
    before = backbones.load("vggish.pre_activation", device=CPU)(items)
    assert before.min() < 0
    assert torch.equal(before.relu(), loaded.extract(items))


@pytest.mark.parametrize("name", [variant for case in CASES.values() for variant in case.oracles])
def test_the_spec_counts_the_parameters_of_the_network(name: str) -> None:
    backbone = backbones.get(name)
    with torch.device("meta"):
        net = backbone.build()
    assert sum(p.numel() for p in net.parameters()) == backbone.spec.parameters


@pytest.mark.parametrize(
    "loaded",
    # One batch of the others takes longer than all of the default run.
    parameters(*CASES, slow=frozenset(CASES) - {"vggish"}),
    indirect=True,
    scope="module",
)
def test_a_row_does_not_depend_on_its_place_or_neighbours_in_a_batch(loaded: Loaded) -> None:
    """Bit for bit, on the CPU, in the fixed batch shape of the spec."""
    n = loaded.extract.spec.cpu_batch
    batch, others = loaded.items(n, seed=23), loaded.items(n, seed=24)
    rows = loaded.extract(batch)
    assert torch.equal(rows, loaded.extract(batch))  # twice the same
    others[-1], others[n // 2] = batch[0], batch[1]
    moved = loaded.extract(others)
    assert torch.equal(moved[-1], rows[0])
    assert torch.equal(moved[n // 2], rows[1])
    # Other shapes and threads are other sums; the recipe and the run's log name them.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        single = loaded.extract(batch)
        moved = loaded.extract(others)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(moved[-1], single[0])
    assert torch.equal(moved[n // 2], single[1])
    found = record_rounding(
        loaded.name,
        n,
        threads,
        alone=relative(loaded.extract(batch[:1]), rows[:1]),
        single=relative(single, rows),
    )
    assert max(found) <= 1e-3


@pytest.mark.parity
@pytest.mark.parametrize("name", QUESTIONS)
def test_rows_equal_tensorflows(name: str, tmp_path: Path) -> None:
    """Keras itself writes the file, for backbones that are published as Keras files."""
    question = QUESTIONS[name]
    backbone, case = backbones.get(question.backbone), CASES[question.backbone]
    state = calibrated(question.backbone)
    items = smooth_items(backbone.spec.input, 2, torch.Generator().manual_seed(21))
    inputs = backbone.to_input(items)
    varied = changed(case, backbone, state, inputs)
    answer = ask(question, state, tmp_path, input=inputs, moved=varied, items=items)
    layout = case.files[""]
    file = tmp_path / (question.file or layout.file)
    if not answer.weights.exists():
        layout.save(layout.tensors(state), file)
    elif file.suffix == ".gz":
        gzipped(answer.weights, file)
    else:
        answer.weights.rename(file)
    with published({layout.entry: file}, tmp_path):
        for output, variant in question.outputs.items():
            rows = backbones.load(variant, device=CPU)(items)
            expected, moved = (answer.outputs[f"{what}/{output}"] for what in ("input", "moved"))
            assert rows.shape == expected.shape
            error, sensitivity = record_network(
                variant, answer.label(question.what), rows, expected, moved, tolerance=1e-4
            )
            assert error <= 1e-4
            assert sensitivity > SENSITIVITY
