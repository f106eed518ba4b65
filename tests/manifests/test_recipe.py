"""The recipe and its fingerprint, and JSON that knows when it was changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from avfeat.errors import IntegrityError
from avfeat.manifests import jsonfile
from avfeat.manifests.recipe import Recipe, differences, library_versions

FIELDS: dict[str, Any] = {
    "backbone": {"name": "n", "dim": 3, "input": {"size": [224, 224], "mean": [0.485, 0.5]}},
    "weights": {"source": "published", "tag": "v1", "sha256": "ab", "seed": None},
    "sampling": {"rule": "avvp", "fps": 8.0},
    "compute": {"engine": "torch", "device": "cpu", "precision": "fp32", "batch_size": 8},
    "store": {"dtype": "float32", "unit_clips": 16},
    "libraries": {"av": "16.0.1", "torch": "2.9"},
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values that hold no others."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else None
    )
    if items is None:
        return [path]
    return [leaf for key, inner in items for leaf in leaves(inner, (*path, key))]


def changed(path: tuple[Any, ...], change: Any) -> dict[str, Any]:
    """FIELDS with the value at `path` passed through `change`."""
    fields = copy.deepcopy(FIELDS)
    holder: Any = fields
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = change(holder[path[-1]])
    return fields


def test_the_fingerprint_never_changes() -> None:
    """It is in every store on users' disks."""
    expected = "0343ecb2511261856ed7d56743f96ce7e6dbc3119d8b1a9d2a310ab80561cd04"
    assert Recipe(**FIELDS).fingerprint == expected


def test_the_order_of_keys_does_not_matter() -> None:
    def reverse(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reverse(value[key]) for key in reversed(value)}
        return value

    assert Recipe(**reverse(FIELDS)).fingerprint == Recipe(**FIELDS).fingerprint
    assert differences(Recipe(**reverse(FIELDS)), Recipe(**FIELDS)) == []


@pytest.mark.parametrize("path", leaves(FIELDS), ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize(
    "change",
    [lambda value: f"{value}x", lambda value: None if value is not None else 0, repr],
    ids=["longer", "none", "text"],
)
def test_every_value_changes_the_fingerprint_and_is_named(
    path: tuple[Any, ...], change: Any
) -> None:
    old, new = Recipe(**FIELDS), None
    fields = changed(path, change)
    if path[0] == "libraries" and None in fields["libraries"].values():
        with pytest.raises(ValidationError):
            Recipe(**fields)
        return
    new = Recipe(**fields)
    assert new.fingerprint != old.fingerprint
    ((field, stored, asked),) = differences(old, new)
    inner = [key for key in path if isinstance(key, str)]
    assert field == ".".join(inner)
    assert stored != asked


@pytest.mark.parametrize(
    ("one", "other"), [(8.0, 8), (1, True), (0.0, -0.0), ([1], [1.0]), (None, "None")]
)
def test_values_of_another_kind_are_another_recipe(one: Any, other: Any) -> None:
    recipes = [Recipe(**{**FIELDS, "sampling": {"fps": value}}) for value in (one, other)]
    assert recipes[0].fingerprint != recipes[1].fingerprint
    assert differences(*recipes) == [("sampling.fps", one, other)]


def test_a_field_that_only_one_has_is_named() -> None:
    old = Recipe(**{**FIELDS, "sampling": {"rule": "avvp"}})
    new = Recipe(**{**FIELDS, "sampling": {"rule": "avvp", "fps": None}})
    assert old.fingerprint != new.fingerprint
    assert differences(old, new) == [("sampling.fps", "(absent)", None)]


def test_other_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        Recipe(**FIELDS, other=1)
    with pytest.raises(ValidationError):
        Recipe(**{**FIELDS, "version": 2})
    with pytest.raises(ValidationError):
        Recipe(**{key: value for key, value in FIELDS.items() if key != "weights"})


FFMPEG = ("av", "libavcodec", "libavformat", "libswscale")


@pytest.mark.parametrize(
    ("modality", "names"),
    [
        ("visual", [*FFMPEG, "numpy", "pillow", "timm", "torch", "torchvision"]),
        ("audio", [*FFMPEG, "numpy", "soxr", "torch"]),
    ],
)
def test_the_libraries_that_rows_depend_on(modality: str, names: list[str]) -> None:
    versions = library_versions(modality)
    assert list(versions) == names
    assert all(version[0].isdigit() for version in versions.values())


DOCUMENT = {"text": 'é "日"\n', "number": 0.1, "list": [1, None, True], "dict": {"b": 1, "a": {}}}


def test_what_was_sealed_comes_back() -> None:
    data = jsonfile.seal(DOCUMENT)
    document = jsonfile.unseal(data, "x")
    assert document.pop("digest") == jsonfile.digest(DOCUMENT)
    assert document == DOCUMENT
    assert jsonfile.seal({**DOCUMENT, "digest": "other"}) == data


def test_every_flipped_bit_is_found() -> None:
    data = jsonfile.seal(DOCUMENT)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError, match="the file is damaged"):
            jsonfile.unseal(bytes(damaged), "the file")


def test_every_lost_or_added_byte_is_found() -> None:
    data = jsonfile.seal(DOCUMENT)
    for place in range(len(data)):
        for damaged in (
            data[:place],
            data[:place] + data[place + 1 :],
            data[:place] + b" " + data[place:],
        ):
            with pytest.raises(IntegrityError, match="the file is damaged"):
                jsonfile.unseal(damaged, "the file")


def test_canonical_json_is_one_text() -> None:
    assert jsonfile.canonical({"b": [1, 0.5], "a": "é"}) == '{"a":"é","b":[1,0.5]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsonfile.canonical({"a": float("nan")})
