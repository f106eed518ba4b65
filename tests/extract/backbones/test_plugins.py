"""Plugin packages: found, named when they are broken, never in the way of what works."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from avfeat.errors import UnknownNameError

BACKBONE = """
from avfeat.extract.backbones import Backbone, BackboneSpec, Geometry, VisualInput, register

{decorator}
class {name}(Backbone):
    spec = BackboneSpec(
        name="{name}".lower(), modality="visual", dim=3, layer="mean",
        input=VisualInput(Geometry(resize=40, crop=32)), weights=(), parameters=0,
        gmacs_per_item=0.0, paper="none", description="for tests",
    )

    def build(self):
        from torch import nn

        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., None]:
    """Writes a package of one module and one entry point, as pip would leave it."""

    def install(module: str, text: str, *, point: str, version: str = "1.0") -> None:
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{module}_pack-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {module}-pack\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[avfeat.backbones]\n{module} = {point}\n")

    return install


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs python where these packages are installed."""

    def run(*arguments: str) -> CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {"PYTHONPATH": str(tmp_path), "AVFEAT_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


BROKEN = {
    "attribute": ("x = 1", "zoo:Net", "AttributeError: module 'zoo' has no attribute 'Net'"),
    "import": ("import no_such_package", "zoo:Net", "ModuleNotFoundError: No module named"),
    "syntax": ("def :", "zoo:Net", "SyntaxError: invalid syntax"),
    "spec": (
        BACKBONE.format(decorator="@register", name="Net").replace('"visual"', '"audio"'),
        "zoo:Net",
        "ValueError: backbone 'net': audio with VisualInput",
    ),
    "nothing": ("def Net(): pass", "zoo:Net", "it brings no backbone"),
    "taken": (
        BACKBONE.format(decorator="@register", name="ResNet152"),
        "zoo:ResNet152",
        "UsageError: backbone 'resnet152' is registered twice",
    ),
    "half": (
        BACKBONE.format(decorator="@register", name="Half") + "\nraise RuntimeError('half way')",
        "zoo:Half",
        "RuntimeError: half way",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_named_and_left_out(
    fault: str, install: Callable[..., None], run: Run
) -> None:
    text, point, wrong = BROKEN[fault]
    install("zoo", text, point=point)
    install("ark", BACKBONE.format(decorator="@register", name="Ark"), point="ark:Ark")
    code = """
from avfeat.errors import UnknownNameError
from avfeat.extract import backbones
print(*backbones.names())
try:
    backbones.get("zoo")
except UnknownNameError as error:
    print(error)
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    names, unknown = done.stdout.splitlines()
    assert {"resnet152", "ark"} <= set(names.split())
    assert not {"net", "half", "zoo"} & set(names.split())
    named = f"backbone plugin 'zoo' ({point}) of the package zoo-pack 1.0: {wrong}"
    assert done.stderr.startswith(named) and done.stderr.count("plugin") == 1
    assert f"Not loaded: {named}" in unknown


def test_commands_work_beside_a_broken_plugin(install: Callable[..., None], run: Run) -> None:
    install("zoo", "x = 1", point="zoo:Net")
    shown = run("-m", "avfeat", "backbones", "show", "vggish", "--json")
    assert shown.returncode == 0
    assert "plugin 'zoo'" in shown.stderr and "plugin" not in shown.stdout


@pytest.mark.parametrize("decorator", ["", "@register"])
def test_a_class_needs_no_decorator_where_the_entry_point_names_it(
    decorator: str, install: Callable[..., None], run: Run
) -> None:
    install("zoo", BACKBONE.format(decorator=decorator, name="Zoo"), point="zoo:Zoo")
    done = run("-c", "from avfeat.extract import backbones as b; print(b.get('zoo').packages)")
    assert (done.stdout, done.stderr) == ("('zoo-pack',)\n", "")


def test_a_module_may_be_the_entry_point(install: Callable[..., None], run: Run) -> None:
    install("zoo", BACKBONE.format(decorator="@register", name="Zoo"), point="zoo")
    done = run("-c", "from avfeat.extract import backbones as b; print(b.get('zoo').spec.dim)")
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_a_plugin_that_imports_another_does_not_pass_for_its_package(
    install: Callable[..., None], run: Run
) -> None:
    install("zoo", BACKBONE.format(decorator="@register", name="Zoo"), point="zoo:Zoo")
    own = BACKBONE.format(decorator="@register", name="Ark")
    install("ark", f"import zoo\n{own}", point="ark:Ark")
    code = "print([b.get(n).packages for n in ('ark', 'zoo', 'resnet152')])"
    done = run("-c", f"from avfeat.extract import backbones as b; {code}")
    assert done.stdout == "[('ark-pack',), ('zoo-pack',), ()]\n", done.stderr


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_plugins_version_is_in_the_recipe(
    version: str, install: Callable[..., None], run: Run
) -> None:
    install(
        "zoo", BACKBONE.format(decorator="@register", name="Zoo"), point="zoo:Zoo", version=version
    )
    code = """
from avfeat.extract import backbones
from avfeat.extract.plan import Settings, make_recipe
zoo = backbones.get("zoo.second")
info = backbones.resolve_weights(zoo, "random")
recipe = make_recipe(zoo, info, Settings(out=""), engine="torch", batch_size=1, unit_clips=1)
print(recipe.libraries["zoo-pack"])
"""
    assert run("-c", code).stdout == f"{version}\n"


def test_an_unknown_name_keeps_its_note_across_processes() -> None:
    error = UnknownNameError("backbone", "zoo", ["ark"], "backbone plugin 'zoo': broken")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert str(error).endswith("Known: ark. Not loaded: backbone plugin 'zoo': broken")
