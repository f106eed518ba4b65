"""LLP: every number of the official files, their kept defects, and files that are not official."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from support import Cli, write_llp

from avfeat import datasets
from avfeat.datasets import llp
from avfeat.errors import AnnotationError, MediaNotFoundError
from avfeat.manifests.clips import ClipManifest

#: Class, weak labels train / val / test, segments A / V / AV of val, of test: docs/datasets.md.
TABLE = """
Speech 4988 365 625 2099 432 432 3126 652 633
Car 624 43 91 349 370 317 645 835 623
Cheering 528 46 86 291 157 124 509 243 223
Dog 761 59 110 325 564 311 581 929 508
Cat 192 21 36 57 157 39 150 386 143
Frying_(food) 343 18 47 174 148 148 424 393 374
Basketball_bounce 455 35 46 118 124 98 164 197 141
Fire_alarm 218 12 24 93 83 64 182 149 108
Chainsaw 299 18 27 151 160 151 237 223 196
Cello 602 33 89 285 204 166 796 708 643
Banjo 186 14 31 90 95 68 272 237 209
Singing 1172 84 181 673 445 438 1389 899 899
Chicken_rooster 437 34 64 241 307 225 430 548 380
Violin_fiddle 1457 73 159 630 531 458 1351 1222 1039
Vacuum_cleaner 495 41 58 355 350 316 506 516 463
Baby_laughter 146 12 20 64 66 54 131 104 99
Accordion 445 29 52 294 233 225 461 332 297
Lawn_mower 224 16 28 137 133 113 225 262 198
Motorcycle 411 22 60 184 193 165 461 521 393
Helicopter 587 35 68 318 296 282 633 559 548
Acoustic_guitar 503 51 104 441 454 362 806 906 690
Telephone_bell_ringing 99 8 11 44 29 23 71 48 39
Baby_cry_infant_cry 430 34 43 278 242 233 337 293 256
Blender 291 22 34 146 213 146 224 316 221
Clapping 164 45 84 252 129 120 465 311 269
"""
ROWS = [line.rsplit(" ", 9) for line in TABLE.split("\n") if line]
CLASSES = tuple(row[0] for row in ROWS)
COUNTS = np.array([[int(number) for number in row[1:]] for row in ROWS])


@pytest.fixture(scope="module")
def manifest(llp_official: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipManifest:
    return load(llp_official, tmp_path_factory.mktemp("media"))


def load(annotations: Path, data: Path) -> ClipManifest:
    return datasets.get("llp").load(annotations=annotations, data=data)


def segments(manifest: ClipManifest, split: str) -> dict[str, np.ndarray]:
    """Rasterise the events: bool [clips, 25, 10] per modality, half-open integer seconds."""
    clips = [clip for clip in manifest.clips if clip.split == split]
    grids = {name: np.zeros((len(clips), 25, 10), bool) for name in ("audio", "visual")}
    for index, clip in enumerate(clips):
        for event in clip.events:
            assert event.onset.is_integer()
            assert event.offset.is_integer()
            row = manifest.classes.index(event.label)
            grids[event.modality][index, row, int(event.onset) : int(event.offset)] = True
    return grids


def test_the_clips_are_those_of_the_paper(manifest: ClipManifest) -> None:
    ids = [clip.id for clip in manifest.clips]
    assert len(ids) == len(set(ids)) == len({clip_id[:11] for clip_id in ids}) == 11_849
    assert len({clip_id[:11].lower() for clip_id in ids}) == 11_849
    splits = Counter(clip.split for clip in manifest.clips)
    assert splits == {"train": 10_000, "val": 649, "test": 1_200}
    assert list(splits) == ["train", "val", "test"]
    assert ids[0] == "BjCEufrlXm4_20_30"
    assert manifest.clips[0].labels == ("Speech", "Dog")
    assert [clip.problem for clip in manifest.clips if clip.problem] == []


def test_the_order_is_that_of_the_full_file(manifest: ClipManifest, llp_official: Path) -> None:
    lines = (llp_official / "AVVP_dataset_full.csv").read_text().splitlines()[1:]
    assert [f"{clip.id}\t{','.join(clip.labels)}" for clip in manifest.clips] == lines


def test_ids_are_cut_by_length_for_they_hold_every_character(manifest: ClipManifest) -> None:
    media_ids = {clip.id[:11]: clip.split for clip in manifest.clips}
    assert sum("_" in media_id for media_id in media_ids) == 1_470
    assert not any(media_id.startswith("_") for media_id in media_ids)
    dashed = Counter(split for media_id, split in media_ids.items() if media_id.startswith("-"))
    assert dashed == {"train": 132, "val": 7, "test": 12}


def test_windows_are_ten_seconds_five_of_them_off_the_second(manifest: ClipManifest) -> None:
    assert {round(clip.seconds, 9) for clip in manifest.clips} == {10.0}
    starts = [clip.start for clip in manifest.clips]
    assert (min(starts), max(starts)) == (0.0, 590.0)
    assert sum(start % 10 == 0 for start in starts) == 11_115
    fractional = {c.id: (c.start, c.end) for c in manifest.clips if not c.start.is_integer()}
    assert fractional == {
        "AP0061o0Nvk_101.8_111.8": (101.8, 111.8),
        "AKVyIQoSyBA_131.8_141.8": (131.8, 141.8),
        "ApKgnUPayqU_8.5_18.5": (8.5, 18.5),
        "BYEc9L5kGKQ_48.7_58.7": (48.7, 58.7),
        "Br4mum2rWtY_9.3_19.3": (9.3, 19.3),
    }


def test_classes_are_in_the_order_of_every_consumer(manifest: ClipManifest) -> None:
    assert manifest.classes == CLASSES
    assert len(CLASSES) == 25


@pytest.mark.parametrize(("column", "split"), [(0, "train"), (1, "val"), (2, "test")])
def test_weak_labels_by_class(manifest: ClipManifest, column: int, split: str) -> None:
    clips = [clip for clip in manifest.clips if clip.split == split]
    found = Counter(label for clip in clips for label in set(clip.labels))
    assert [found[name] for name in CLASSES] == COUNTS[:, column].tolist()
    assert COUNTS[:, column].sum() == (16_057, 1_170, 2_178)[column]
    sizes = Counter(len(set(clip.labels)) for clip in clips)
    if split == "train":
        assert sizes == {1: 4_032, 2: 5_879, 3: 89}
    else:
        assert max(sizes) == {"val": 4, "test": 7}[split]


@pytest.mark.parametrize(("column", "split"), [(3, "val"), (6, "test")])
def test_segments_by_class_and_modality(manifest: ClipManifest, column: int, split: str) -> None:
    grids = segments(manifest, split)
    audio, visual = grids["audio"], grids["visual"]
    for offset, grid in enumerate((audio, visual, audio & visual)):
        assert grid.sum(axis=(0, 2)).tolist() == COUNTS[:, column + offset].tolist()
    totals = {"val": (8_089, 6_115, 5_078), "test": (14_576, 11_789, 9_592)}
    assert (audio.sum(), visual.sum(), (audio & visual).sum()) == totals[split]
    silent, unseen = ~audio.any(axis=1), ~visual.any(axis=1)
    empty = {"val": (609, 1_324, 263), "test": (1_289, 2_298, 513)}
    assert (silent.sum(), unseen.sum(), (silent & unseen).sum()) == empty[split]
    several = (audio.sum(axis=1) > 1).sum(), (visual.sum(axis=1) > 1).sum()
    if split == "test":
        assert several == (3_364, 1_757)


def test_events_as_maximal_runs(manifest: ClipManifest) -> None:
    def runs(grid: np.ndarray) -> int:
        starts = grid & ~np.pad(grid, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]
        return int(starts.sum())

    totals = np.zeros(3, int)
    for split in ("val", "test"):
        grids = segments(manifest, split)
        both = grids["audio"] & grids["visual"]
        found = [runs(grids["audio"]), runs(grids["visual"]), runs(both)]
        totals += found
        if split == "test":
            assert found == [2_638, 1_625, 1_617]
    assert totals.tolist() == [4_078, 2_481, 2_489]


def test_every_event_row_is_kept_or_counted(manifest: ClipManifest) -> None:
    kept = Counter(event.modality for clip in manifest.clips for event in clip.events)
    left_out = {"audio": 4_131 - kept["audio"], "visual": 2_495 - kept["visual"]}
    assert left_out == {"audio": UNMATCHED["audio"], "visual": UNMATCHED["visual"]}
    assert manifest.notes == tuple(
        f"AVVP_eval_{name}.csv: {rows} rows name no clip (left out, as the official file has them)"
        for name, rows in left_out.items()
    )
    assert not any(clip.events for clip in manifest.clips if clip.split == "train")


UNMATCHED_NAMES = {
    "12eWNawPekw_30_40",
    "17iGUal2M_10_20",
    "19jWnmYnlD8_30_400",
    "7X3oSVoA_90_100",
    "AkAfFL5Q4QA_30_40",
    "CSWQ_HzQ_10_20",
    "P7x4FV4lg_570_580",
    "VMTJRpjbE_150_160",
}
#: Rows of those names, counted in the files with cut and sort alone.
UNMATCHED = {"audio": 14, "visual": 11}


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_the_rows_left_out_are_the_eight_known_names(
    manifest: ClipManifest, llp_official: Path, modality: str
) -> None:
    known = {clip.id for clip in manifest.clips}
    lines = (llp_official / f"AVVP_eval_{modality}.csv").read_text().splitlines()[1:]
    strangers = [line.split("\t")[0] for line in lines if line.split("\t")[0] not in known]
    expected = UNMATCHED_NAMES - ({"17iGUal2M_10_20"} if modality == "visual" else set())
    assert set(strangers) == expected
    assert len(strangers) == UNMATCHED[modality]


def test_defects_that_published_numbers_contain_are_kept(manifest: ClipManifest) -> None:
    clips = {clip.id: clip for clip in manifest.clips}
    assert clips["LcFWKgFphXI_20_30"].labels == ("Clapping", "Clapping")
    dense = [(clip.id, event) for clip in manifest.clips for event in clip.events]
    empty = {(name, event.onset) for name, event in dense if event.onset == event.offset}
    assert empty == {
        ("CaC2xvdLC34_250_260", 9.0),
        ("Gg3pK71kApY_30_40", 10.0),
        ("H5WcJwyjxIg_2_12", 0.0),
        ("Baue01N86wE_10_20", 1.0),
    }  # the fifth stands under CSWQ_HzQ_10_20, which is no clip
    inverted = [(name, event) for name, event in dense if event.onset > event.offset]
    assert [(name, e.label, e.onset, e.offset) for name, e in inverted] == [
        ("8DF2PxdT5tE_390_400", "Cheering", 9.0, 0.0)
    ]
    twice = Counter(dense)
    repeated = {pair: count - 1 for pair, count in twice.items() if count > 1}
    assert sum(repeated.values()) == 8
    assert {name[:11] for name, _ in repeated} == {
        *("Ishr8cHsJkc", "CY5ib3L_Z2Y", "3zWX4iDWwTE", "BYEYNxKvij4", "39KgkK23Zmk")
    }
    assert {event.modality for _, event in repeated} == {"audio"}


def test_clips_without_dense_labels(manifest: ClipManifest) -> None:
    dense = [clip for clip in manifest.clips if clip.split != "train"]
    silent = {c.id[:11] for c in dense if not any(e.modality == "audio" for e in c.events)}
    assert silent == {
        *("1A6dFiD40qk", "29-VHfXrz7E", "6g2aFcP1a_Q", "7YChvLYpyUk", "957DUIy6yfE"),
        *("DDVbCC9GbGE", "DGSV4gjn94I", "I8SDFfuMux8", "Js8vb6_jjR4"),
    }
    unseen = [c.split for c in dense if not any(e.modality == "visual" for e in c.events)]
    assert Counter(unseen) == {"val": 70, "test": 121}
    assert all(clip.events for clip in dense)
    differing = [c for c in dense if set(c.labels) != {event.label for event in c.events}]
    assert len(differing) == 81


def test_the_files_are_the_official_ones(manifest: ClipManifest, llp_official: Path) -> None:
    sums = dict(
        reversed(line.split(maxsplit=1))
        for line in (llp_official.parent / "SHA256SUMS").read_text().splitlines()
    )
    listed = {Path(name).name: digest for name, digest in sums.items() if "llp/" in name}
    assert manifest.provenance["labels_version"] == "official, corrected 2024-04"
    assert manifest.provenance["annotations"] == llp.OFFICIAL_SHA256
    assert {name: listed[name] for name in llp.OFFICIAL_SHA256} == llp.OFFICIAL_SHA256


def test_the_old_audio_file_is_told_and_does_no_harm(
    manifest: ClipManifest, llp_official: Path, tmp_path: Path
) -> None:
    """As seven published repositories ship it: three rows name no clip."""
    shutil.copytree(llp_official, tmp_path / "old", copy_function=shutil.copyfile)
    path = tmp_path / "old" / "AVVP_eval_audio.csv"
    lines = path.read_text().split("\n")
    assert [line.split("\t") for line in lines[929:931]] == [
        ["JfZEqeLZqWk_30_40", "0", "4", "Speech"],
        ["JfZEqeLZqWk_30_40", "7", "10", "Speech"],
    ]
    for number in (929, 930):
        lines[number] = lines[number].replace("JfZEqeLZqWk_30_40", "Baby_cry_infant_cry")
    assert lines[2448].startswith("KvIjsmANkxI_10_20\t")
    lines[2448] = lines[2448].replace("KvIjsmANkxI_10_20", "KvIjsmANkxI_10_20`")
    path.write_text("\n".join(lines))
    old = load(tmp_path / "old", tmp_path)
    assert old.provenance["labels_version"] == "other (AVVP_eval_audio.csv differ)"
    counts = [sum(len(clip.events) for clip in each.clips) for each in (manifest, old)]
    assert counts[0] - counts[1] == 3
    left_out = UNMATCHED["audio"] + 3
    assert f"AVVP_eval_audio.csv: {left_out} rows name no clip (left out)" in old.notes[0]
    assert [clip.id for clip in old.clips] == [clip.id for clip in manifest.clips]
    assert not any(clip.problem for clip in old.clips)


NAMES = ("-abc_def-gh_0_10", "_x-yzABCDE1_20_30", "AP0061o0Nvk_101.8_111.8", "plainClip01_5_15")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Official files of four clips of awkward names."""
    folder = tmp_path / "annotations"
    folder.mkdir()
    write_llp(folder, train=[NAMES[2]], val=[NAMES[0]], test=[NAMES[1], NAMES[3]])
    return folder


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("naming", [lambda clip_id: clip_id[:11], str], ids=["id", "filename"])
@pytest.mark.parametrize("suffix", [".mp4", ".MKV", ".wav", ".unknown"])
def test_media_is_found_by_id_or_by_file_name(
    small: Path, media: Path, naming: Callable[[str], str], suffix: str
) -> None:
    for name in NAMES:
        (media / f"{naming(name)}{suffix}").touch()
    found = load(small, media).media
    assert found == {name: media / f"{naming(name)}{suffix}" for name in NAMES}


def test_of_several_files_the_likeliest_is_taken(small: Path, media: Path) -> None:
    for name in ("plainClip01.wav", "plainClip01.webm", "plainClip01.mp4", "plainClip01.xyz"):
        (media / name).touch()
    (media / f"{NAMES[3]}.mkv").touch()
    for expected in ("plainClip01.mp4", "plainClip01.webm", "plainClip01.wav", "plainClip01.xyz"):
        assert load(small, media).media == {NAMES[3]: media / expected}
        (media / expected).unlink()
    assert load(small, media).media == {NAMES[3]: media / f"{NAMES[3]}.mkv"}


def test_what_lies_beside_media_is_none(small: Path, media: Path) -> None:
    for suffix in (".json", ".info.json", ".txt", ".jpg", ".npy", ".mp4.part", ".en.vtt", ".WEBP"):
        (media / f"plainClip01{suffix}").touch()
    (media / ".plainClip01.mp4").touch()
    (media / "plainClip01.mp4").mkdir()
    (media / "sub").mkdir()
    (media / "sub" / "plainClip01.mp4").touch()
    assert load(small, media).media == {}


def test_a_media_folder_that_is_none_is_said(small: Path, media: Path) -> None:
    (media / "file").touch()
    for name, reason in (("nothing", "No such file"), ("file", "Not a directory")):
        with pytest.raises(MediaNotFoundError, match=f"{reason}.*--data DIR"):
            load(small, media / name)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.rstrip(b"\n"),
        lambda data: data + b"\n\n",
    ],
    ids=["byte-order-mark", "crlf", "no-newline", "empty-lines"],
)
def test_how_an_editor_saved_the_files_does_not_matter(
    small: Path, media: Path, change: Callable[[bytes], bytes]
) -> None:
    before = load(small, media)
    for path in small.iterdir():
        path.write_bytes(change(path.read_bytes()))
    after = load(small, media)
    assert after.clips == before.clips
    assert after.notes == before.notes == ()


@pytest.mark.parametrize("name", ["AVVP_train.csv", "AVVP_eval_visual.csv"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory; --annotations DIR must hold AVVP_train.csv"),
        (b"", "is not the official file: its first line is ''"),
        (b"<!DOCTYPE html>\n<title>404</title>", "its first line is '<!DOCTYPE html>'"),
        (b"filename,event_labels\n", "its first line is 'filename,event_labels'"),
        (b"BjCEufrlXm4_20_30\tSpeech\n", "is not the official file"),
        (b"PK\x03\x04\xff\xfe\x80", "is not text"),
        (b"\0" * 300_000, "is not the official file"),
        ("filename\tevent_labels\n".encode("utf-16"), "is not text"),
    ],
)
def test_files_that_are_not_the_official_ones_are_refused(
    small: Path, media: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is None:
        (small / name).unlink()
    else:
        (small / name).write_bytes(content)
    with pytest.raises(AnnotationError) as caught:
        load(small, media)
    assert words in str(caught.value)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_folder_in_the_place_of_a_file_is_said(small: Path, media: Path) -> None:
    (small / "AVVP_train.csv").unlink()
    (small / "AVVP_train.csv").mkdir()
    with pytest.raises(AnnotationError, match=r"cannot read .*AVVP_train\.csv: Is a directory"):
        load(small, media)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("plainClip02_5_16\tDog", "'plainClip02_5_16' is not <11-character id>_<start>_"),
        ("short_5_15\tDog", "is not <11-character id>"),
        ("plainClip02_5_15", "1 columns instead of 2"),
        ("plainClip02_5_15\tDog\tx", "3 columns instead of 2"),
        ("plainClip02_5_15\tDog,", "unknown label ''"),
        ("plainClip02_5_15\tdog", "unknown label 'dog'"),
    ],
)
def test_bad_rows_are_clips_with_a_problem(
    small: Path, media: Path, row: str, problem: str
) -> None:
    with (small / "AVVP_val_pd.csv").open("a") as file:
        file.write(f"{row}\n")
    clips = load(small, media).clips
    (bad,) = [clip for clip in clips if clip.problem]
    assert len(clips) == 5
    assert bad.problem is not None
    assert bad.problem.startswith("AVVP_val_pd.csv line 3: ")
    assert problem in bad.problem


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("x\t5\tDog", "bad time or column"),
        ("\t5\tDog", "bad time or column"),
        ("nan\t5\tDog", "outside the clip"),
        ("-1\t5\tDog", "outside the clip"),
        ("2\t10.5\tDog", "outside the clip"),
        ("2\t5\tDog\tmore", "bad time or column"),
        ("2\t5\tHorse", "unknown label 'Horse'"),
    ],
)
def test_bad_event_rows_are_problems_of_their_clip(
    small: Path, media: Path, row: str, problem: str
) -> None:
    with (small / "AVVP_eval_audio.csv").open("a") as file:
        file.write(f"{NAMES[0]}\t{row}\n")
    (bad,) = [clip for clip in load(small, media).clips if clip.problem]
    assert bad.id == NAMES[0]
    assert problem in str(bad.problem)
    assert "AVVP_eval_audio.csv line 5: " in str(bad.problem)


class Host:
    """Serves the official files on this machine, and notes what was asked for."""

    def __init__(self, folder: Path) -> None:
        requests = self.requests = list[str]()

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                requests.append(self.path)

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=str(folder))
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def host(
    llp_official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Host, Path]]:
    """A host of the official files, the folder it serves, and an empty cache."""
    served = tmp_path / "served"
    shutil.copytree(llp_official, served, copy_function=shutil.copyfile)
    monkeypatch.setenv("AVFEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    host = Host(served)
    monkeypatch.setattr(llp, "_URL", host.url)
    yield host, served
    host.close()


def test_annotations_are_fetched_once(
    host: tuple[Host, Path], media: Path, llp_official: Path
) -> None:
    server, _ = host
    manifest = datasets.get("llp").load(annotations=None, data=media)
    assert manifest.clips == load(llp_official, media).clips
    assert sorted(server.requests) == sorted(f"/{name}" for name in llp.OFFICIAL_SHA256)
    server.requests.clear()
    assert datasets.get("llp").load(annotations=None, data=media).clips == manifest.clips
    assert server.requests == []


def test_what_came_is_checked(host: tuple[Host, Path], media: Path, tmp_path: Path) -> None:
    _, served = host
    with (served / "AVVP_val_pd.csv").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(AnnotationError, match=r"SHA-256 is .* expected 1811813b") as caught:
        datasets.get("llp").load(annotations=None, data=media)
    assert "--annotations DIR" in str(caught.value)
    assert not list((tmp_path / "cache").rglob("AVVP_val_pd.csv"))
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_cached_file_that_was_changed_is_refused(
    host: tuple[Host, Path], media: Path, tmp_path: Path
) -> None:
    datasets.get("llp").load(annotations=None, data=media)
    (path,) = (tmp_path / "cache").rglob("AVVP_train.csv")
    path.write_text(path.read_text().replace("Dog", "Cat", 1))
    with pytest.raises(AnnotationError, match="Delete it to have it fetched again"):
        datasets.get("llp").load(annotations=None, data=media)


def test_without_network_the_way_out_is_named(
    avfeat: Cli, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llp, "_URL", "http://127.0.0.1:9/data/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (media / "BjCEufrlXm4.mp4").touch()
    result = avfeat("extract", "-b", "tiny_image", "-d", "llp", "--data", media, code=2)
    assert "AVVP_train.csv is not at hand and could not be fetched" in result.stderr
    assert "http://127.0.0.1:9/data/AVVP_train.csv" in result.stderr
    assert "--annotations DIR" in result.stderr
    assert "Traceback" not in result.stderr
