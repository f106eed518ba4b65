"""The demo's steps: make clips, run the real commands on them, draw and compare what came out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from rich.console import Console

from avfeat.demo.pictures import draw_clip
from avfeat.demo.scenes import SCENES, SECONDS, make_scenes
from avfeat.errors import WeightsError
from avfeat.extract import backbones
from avfeat.interrupt import run_child
from avfeat.progress import DownloadProgress
from avfeat.stores import open_store

#: What the demo costs, in its first line.
COST = (
    "The demo takes a few minutes on a CPU, nearly all of it resnet152 on 240 frames, and, where "
    "they can be had, 630 MiB of published weights"
)
AUDIO, VISUAL = ("vggish",), ("resnet152", "r2plus1d_18")
BACKBONES = (*AUDIO, *VISUAL)
#: Singular vectors compared: three clips determine no more.
_DIRECTIONS = len(SCENES) - 1


def run_demo(out: Path, talk: Console) -> int:
    """Run the demo into `out`; return the exit code of the first command that failed, or 0."""
    talk.print(f"{COST}. Ctrl-C stops it; the same command goes on", markup=False)
    talk.print(f"1. {len(SCENES)} synthetic clips with planted events, in {out}", markup=False)
    media, annotations = make_scenes(out)
    weights = _choose_weights(talk)
    features = out / "features"
    store_folder = features / "llp"
    talk.print("2. extract, inspect and verify: the commands you would type", markup=False)
    options = {"--dataset": "llp", "--data": media, "--annotations": annotations}
    # Small units: Ctrl-C waits for the one in hand.
    options |= {"--out": features, "--weights": weights, "--unit-clips": 2}
    commands = (
        ["extract", "--backbone", ",".join(BACKBONES), *map(str, chain(*options.items()))],
        ["inspect", str(store_folder / VISUAL[0])],
        ["verify", str(features)],
    )
    for command in commands:
        code = _avfeat(command, talk)
        if code:
            return code
    talk.print("3. a picture per clip", markup=False)
    stores = [open_store(store_folder / name, allow_random=True) for name in BACKBONES]
    pictures = out / "pictures"
    pictures.mkdir(exist_ok=True)
    for scene in SCENES:
        path = pictures / f"{scene.filename}.png"
        draw_clip(
            path,
            media=media / f"{scene.media_id}.mp4",
            clip_id=scene.filename,
            seconds=SECONDS,
            events=scene.events,
            stores=stores,
        )
        shapes = ", ".join(
            f"{store.recipe.backbone['name']} {store[scene.filename].shape}" for store in stores
        )
        print(f"{path}  {shapes}")
    print(f'\nRead it in Python:\n  store = avfeat.open_store("{store_folder / VISUAL[0]}"', end="")
    print(", allow_random=True)" if weights == "random" else ")")
    print(
        f'  store["{SCENES[0].filename}"].shape  # {stores[len(AUDIO)][SCENES[0].filename].shape}'
    )
    sys.stdout.flush()
    talk.print(
        "\n4. which backbones belong together: the command at work, no answer, as three clips tell "
        "nothing",
        markup=False,
    )
    # One clip per split is nothing to compare splits by: all of them, without what does that.
    command = ["collocate", "--audio", ",".join(AUDIO), "--visual", ",".join(VISUAL)]
    command += ["--motion", "none", "--source", "all", "--target", "all"]
    command += ["--directions", str(_DIRECTIONS), "--out", str(features)]
    code = _avfeat(command + ["--allow-random"] * (weights == "random"), talk)
    if code:
        return code
    talk.print(
        "Stores whose best pair is known: avfeat datasets synthesize, and avfeat collocate on them",
        markup=False,
    )
    return 0


def _choose_weights(talk: Console) -> str:
    """Published weights if all of them can be had, else random ones, said aloud."""
    downloading = DownloadProgress(talk)
    for name in BACKBONES:
        try:
            backbones.resolve_weights(name, progress=partial(downloading, name))
        except WeightsError:
            talk.print(
                f"the published weights of {name} cannot be fetched here: the demo goes on with "
                "seeded RANDOM weights. Shapes, times and files are real, the features are not",
                style="yellow",
                markup=False,
            )
            return "random"
    return "published"


def _avfeat(arguments: Sequence[str], talk: Console) -> int:
    talk.print(f"$ avfeat {shlex.join(arguments)}", style="bold", markup=False)
    sys.stdout.flush()
    return run_child([sys.executable, "-m", "avfeat", *arguments])
