"""Which stores are compared, over which clips, and what is refused with which words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from collocationkit import drawn_rows, make_clips, make_family, make_store

from avfeat.collocate.candidates import Candidates, gather
from avfeat.datasets.synthetic import Family
from avfeat.errors import (
    CollocationError,
    RandomWeightsError,
    StoreNotFoundError,
    UnknownNameError,
)

CLIPS = make_clips({"train": 6, "val": 3, "test": 2})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All five backbones; two of them without some clips."""
    folder = tmp_path_factory.mktemp("features")
    without = {"vggish": ["train_01"], "polynet": ["train_01", "val_02"]}
    return make_family(folder, CLIPS, without=without)


def find(out: str, audio: str = "all", visual: str = "all", **options: object) -> Candidates:
    return gather(out, dataset=None, audio=audio.split(","), visual=visual.split(","), **options)  # type: ignore[arg-type]


def names(candidates: tuple) -> list[str]:
    return [one.name for one in candidates]


def test_common_clips_of_stores_that_differ(root: str) -> None:
    found = find(root)
    assert found.clips == tuple(c.id for c in CLIPS if c.id not in ("train_01", "val_02"))
    assert found.apart == 2
    assert found.split("val") == ["val_00", "val_01"]
    assert found.split("all") == list(found.clips)
    assert found.splits == ("test", "train", "val")
    with pytest.raises(CollocationError, match=r"in split 'dev'; there are test, train, val"):
        found.split("dev")


def test_all_leaves_the_motion_network_out(root: str) -> None:
    found = find(root)
    assert found.dataset == "llp"
    assert (names(found.audio), names(found.visual)) == (
        ["openl3", "vggish"],
        ["polynet", "resnet152"],
    )
    assert found.motion is not None
    assert found.motion.name == "r2plus1d_18"
    assert [(a.name, v.name) for a, v in found.pairs] == [
        ("openl3", "polynet"),
        ("openl3", "resnet152"),
        ("vggish", "polynet"),
        ("vggish", "resnet152"),
    ]
    assert names(find(root, motion="polynet").visual) == ["r2plus1d_18", "resnet152"]
    without = find(root, motion="none")
    assert without.motion is None
    assert "r2plus1d_18" in names(without.visual)


def test_motion_asked_for_as_a_visual_one_too_is_read_once(root: str) -> None:
    found = find(root, "vggish", "r2plus1d_18")
    assert found.motion is found.visual[0]
    assert names(found.all) == ["vggish", "r2plus1d_18"]  # type: ignore[arg-type]


def test_scores_do_not_depend_on_a_motion_store_that_they_do_not_read(tmp_path: Path) -> None:
    out = make_family(tmp_path, CLIPS, names=("vggish", "resnet152"))
    make_family(
        tmp_path,
        CLIPS,
        names=("r2plus1d_18",),
        source="random",
        without={"r2plus1d_18": ["train_01", "val_02"]},
    )
    found = find(out, trains=False)
    assert (found.motion, found.apart, len(found.clips)) == (None, 0, len(CLIPS))
    assert names(found.visual) == ["resnet152"]
    with pytest.raises(RandomWeightsError, match="r2plus1d_18"):
        find(out)


def test_what_is_missing_of_the_synthetic_family_is_made_by_its_own_command(tmp_path: Path) -> None:
    out = make_family(tmp_path, CLIPS, names=("vggish", "resnet152"), dataset="synthetic")
    (one,) = find(out, "vggish", "resnet152,senet154").missing
    assert one.command == f"avfeat datasets synthesize --out {out}"
    (tmp_path / "synthetic" / "truth.json").write_text(
        json.dumps(Family(seed=4, clips=(7, 5, 3), width="real").truth())
    )
    (one,) = find(out, "vggish", "resnet152,senet154").missing
    options = "--clips 7,5,3 --width real --seed 4"
    assert one.command == f"avfeat datasets synthesize --out {out} {options}"
    with pytest.raises(
        CollocationError, match=r"family has no openl3\.music; it has openl3, openl3_"
    ):
        gather(out, dataset=None, audio=["openl3.music"], visual=["resnet152"])


def test_order_and_duplicates_are_those_asked_for(root: str) -> None:
    found = find(root, "vggish,openl3,vggish", "resnet152,all")
    assert names(found.audio) == ["vggish", "openl3"]
    assert names(found.visual) == ["resnet152", "polynet"]


def test_missing_stores_are_named_with_their_command(root: str) -> None:
    found = find(root, "vggish", "resnet152,senet154")
    (one,) = found.missing
    assert (one.name, one.modality) == ("senet154", "visual")
    assert one.command == f"avfeat extract --backbone senet154 --dataset llp --out {root}"
    of_all = find(root, "vggish", "all").missing
    assert {"vgg19_bn", "senet154", "i3d"} <= {one.name for one in of_all}
    assert not {"polynet", "r2plus1d_18", "vgg19.pool5"} & {one.name for one in of_all}
    # A folder below the root is as good; the command still fills the root.
    assert find(f"{root}/llp", "vggish", "senet154,polynet").missing == (one,)
    with pytest.raises(CollocationError, match="no visual store of llp") as caught:
        find(root, "vggish", "senet154")
    assert one.command in str(caught.value)


def test_names_that_are_wrong(root: str) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet152'"):
        find(root, "vggish", "resnet15")
    with pytest.raises(CollocationError, match="resnet152 is no audio backbone"):
        find(root, "resnet152")
    with pytest.raises(CollocationError, match="senet154 is no audio backbone"):
        find(root, "senet154")
    with pytest.raises(CollocationError, match=r"no audio store of llp to compare$"):
        gather(root, dataset=None, audio=[], visual=["all"])
    with pytest.raises(CollocationError, match=r"(?s)--motion senet154.*--backbone senet154"):
        find(root, motion="senet154")
    with pytest.raises(UnknownNameError, match="Did you mean 'llp'"):
        gather(root, dataset="lpp", audio=["all"], visual=["all"])
    with pytest.raises(StoreNotFoundError):
        find(f"{root}/nothing")


def test_none_in_common(tmp_path: Path) -> None:
    ids = [clip.id for clip in CLIPS]
    without = {"vggish": ids[:6], "resnet152": ids[6:]}
    out = make_family(tmp_path, CLIPS, names=("vggish", "resnet152"), without=without)
    with pytest.raises(
        CollocationError, match=r"no clip in common \(vggish 5 clips, resnet152 6 clips\)"
    ):
        find(out)


def test_two_recipes_of_one_name(tmp_path: Path) -> None:
    out = make_family(tmp_path, CLIPS[:2], names=("vggish", "resnet152"))
    rows = drawn_rows("vggish", "audio", 5, 1)
    make_store(
        tmp_path / "llp" / "again", "vggish", CLIPS[:2], rows, modality="audio", dim=5, layer="fc"
    )
    with pytest.raises(CollocationError, match=r"both hold vggish.*differ in backbone\.layer"):
        find(out)


def test_twins_that_nobody_asked_for_refuse_nothing(tmp_path: Path) -> None:
    every = ("vggish", "openl3", "resnet152", "polynet", "r2plus1d_18")
    out = make_family(tmp_path, CLIPS[:2], names=every)
    for name, modality in (("vggish", "audio"), ("r2plus1d_18", "visual")):
        make_store(
            tmp_path / "llp" / f"{name}-again",
            name,
            CLIPS[:2],
            drawn_rows(name, modality, 5, 1),
            modality=modality,
            dim=5,
            layer="fc",
        )
    found = find(out, "openl3", "polynet", motion="none")
    assert (names(found.audio), names(found.visual)) == (["openl3"], ["polynet"])
    chosen = [
        ("vggish", {"audio": "vggish", "visual": "polynet", "motion": "none"}),
        ("vggish", {"audio": "all", "visual": "polynet", "motion": "none"}),
        ("r2plus1d_18", {"audio": "openl3", "visual": "polynet"}),
        ("r2plus1d_18", {"audio": "openl3", "visual": "all", "motion": "none"}),
    ]
    for name, options in chosen:
        with pytest.raises(CollocationError, match=f"both hold {name}, their recipes differ"):
            find(out, **options)


def test_several_data_sets(tmp_path: Path) -> None:
    for dataset in ("llp", "ave"):
        out = make_family(tmp_path, CLIPS[:1], names=("vggish", "resnet152"), dataset=dataset)
    with pytest.raises(CollocationError, match="stores of ave, llp: choose one with --dataset"):
        find(out)
    assert gather(out, dataset="ave", audio=["all"], visual=["all"]).dataset == "ave"


def test_random_weights_are_refused_where_they_take_part(tmp_path: Path) -> None:
    make_family(tmp_path, CLIPS[:2], names=("polynet",), source="random")
    out = make_family(tmp_path, CLIPS[:2], names=("vggish", "resnet152"))
    with pytest.raises(RandomWeightsError, match=r"llp/polynet.*--allow-random"):
        find(out)
    assert names(find(out, allow_random=True).visual) == ["polynet", "resnet152"]
    assert names(find(out, "vggish", "resnet152").visual) == ["resnet152"]


def test_synthetic_stores_open_and_nothing_can_be_extracted_for_them(tmp_path: Path) -> None:
    out = make_family(
        tmp_path,
        CLIPS[:2],
        names=("vggish", "resnet152"),
        source="synthetic",
        dataset="synthetic",
    )
    found = find(out)
    assert found.missing == ()
    assert len(found.pairs) == 1


def test_maps_are_left_out_of_all_and_refused_by_name(tmp_path: Path) -> None:
    out = make_family(tmp_path, CLIPS[:2], names=("vggish", "resnet152"))

    def maps(clip: object) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((4, 2, 2, 3), np.float32), np.arange(4.0)

    make_store(
        tmp_path / "llp" / "maps",
        "vgg19.pool5",
        CLIPS[:2],
        maps,
        modality="visual",
        dim=3,
        map=(2, 2),
    )
    assert find(out).left_out == {"vgg19.pool5": "its rows are maps, not vectors"}
    assert find(out, "vggish", "resnet152").left_out == {}
    with pytest.raises(CollocationError, match=r"vgg19\.pool5 cannot be compared: its rows are"):
        find(out, "vggish", "vgg19.pool5")


def test_annotations_that_differ_are_refused(tmp_path: Path) -> None:
    make_family(tmp_path, CLIPS, names=("vggish",))
    other = [replace(clip, split="test") if clip.id == "val_01" else clip for clip in CLIPS]
    out = make_family(tmp_path, other, names=("resnet152",))
    with pytest.raises(CollocationError, match="annotate clip val_01 differently"):
        find(out)
    out = make_family(tmp_path / "b", CLIPS, names=("vggish",))
    make_family(tmp_path / "b", CLIPS, names=("resnet152",), classes=("Cat", "Dog", "Car"))
    with pytest.raises(CollocationError, match="name the classes differently"):
        find(out)
