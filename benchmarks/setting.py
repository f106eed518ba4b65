"""What the sections share: options, clips, networks that stay loaded, runs that alternate."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import av

from avfeat.extract import session
from avfeat.extract.batch import Forward
from avfeat.extract.models import Model, models
from avfeat.extract.plan import Plan, Settings
from avfeat.extract.run import RunReport, run
from avfeat.testing.clips import AudioTrack, make_clip
from benchmarks.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "media"

#: A real clip of LLP, 10 s of 320 x 240 H.264, where ../shared/media is there.
REAL = SHARED / "BjCEufrlXm4.mp4"

#: Networks that stand in for the real ones in a smoke test: image models of 0.4 M parameters.
TINY = ("timm:test_resnet.r160_in1k", "timm:test_vit.r160_in1k")

#: Programs that want to run, per core, up to which a machine counts as quiet.
QUIET = 0.5

Section = Callable[["Setting"], Iterable[Figure]]


@dataclass
class Setting:
    """What a section is to measure with.

    Attributes
    ----------
    folder
        For files of this run.
    quick
        Whether only to see that it runs: tiny networks and clips, one repetition.
    runs
        Repetitions that were asked for; None for the section's own number.
    device
        Torch device of the forward passes.
    engine
        What avfeat runs networks with.
    """

    folder: Path
    quick: bool = False
    runs: int | None = None
    device: str = "cpu"
    engine: str = "auto"
    _loaded: dict[Model, Forward] = field(default_factory=dict)
    _made: int = 0

    def repeats(self, own: int) -> int:
        """Return how many repetitions to make where a section would make `own`."""
        return 1 if self.quick else self.runs or own

    @cached_property
    def precisions(self) -> tuple[str, ...]:
        """float32, and what else the device has."""
        from avfeat.extract.engines.precision import has_bf16

        if self.quick:
            return ("fp32",)
        if self.device != "cpu":
            return ("fp32", "tf32", "bf16", "fp16")
        return ("fp32", "bf16") if has_bf16() else ("fp32",)

    def fresh(self, name: str) -> Path:
        """Return a new folder of this run."""
        self._made += 1
        path = self.folder / f"{name}-{self._made}"
        path.mkdir(parents=True)
        return path

    def clips(self, count: int, *, seconds: float = 10.0) -> Path:
        """Return a new folder with `count` copies of a clip, of 1 s in a smoke test."""
        media = self.fresh("media")
        first = media / "clip0000.mp4"
        if REAL.exists() and not self.quick:
            _cut(REAL, first, seconds)
        else:
            seconds = 1.0 if self.quick else seconds
            sound = AudioTrack([(0.0, seconds, 440.0, 0.3)], gains=(1.0, 1.0))
            make_clip(first, fps=30, size=(320, 240), duration=seconds, audio=sound)
        for number in range(1, count):
            shutil.copyfile(first, media / f"clip{number:04d}.mp4")
        return media

    def open(
        self,
        stack: ExitStack,
        names: Sequence[str],
        media: Path,
        *,
        precision: str = "fp32",
        unit_clips: int | None = None,
        decoders: int | None = None,
        processes: int = 1,
    ) -> Plan:
        """Plan an extraction into fresh stores, closed with the stack; random weights."""
        manifest = session.load_manifest("folder", data=media, annotations=None)
        settings = Settings(
            out=str(self.fresh("features")),
            device=self.device,
            engine=self.engine,
            precision=precision,  # type: ignore[arg-type]
            sampling="avvp",
            decoders=decoders or max(1, (os.cpu_count() or 1) // 2),
            unit_clips=unit_clips,
            processes=processes,
            isolate=not self.quick,  # each process takes half a second to start
        )
        chosen = session.choose(names, dataset="llp", device=settings.device)
        plan = stack.enter_context(session.open_plan(manifest, chosen, settings, weights="random"))
        for task in plan.tasks:
            task.writer.create()
        return plan

    def networks(self, plan: Plan) -> dict[str, Forward]:
        """Load what a plan needs, once for all that is measured."""
        found = {}
        for name, model in models(plan).items():
            if model not in self._loaded:
                self._loaded[model] = model.load()
            found[name] = self._loaded[model]
        return found

    def forget(self) -> None:
        """Free the networks."""
        self._loaded.clear()

    def extract(self, names: Sequence[str], media: Path, **options: object) -> RunReport:
        """Extract every clip in `media`, networks loaded before the clock starts."""
        with ExitStack() as stack:
            plan = self.open(stack, names, media, **options)  # type: ignore[arg-type]
            report = run(plan, self.networks(plan))
        failed = sum(
            o.status not in ("ok", "degraded") for t in plan.tasks for o in t.writer.outcomes
        )
        if failed or report.crashes:
            raise RuntimeError(f"{failed} clips failed: {report.crashes}")
        return report


def _cut(source: Path, target: Path, seconds: float) -> None:
    """Copy the packets of the first seconds of a clip as they are."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        streams = {one.index: made.add_stream_from_template(one) for one in given.streams}
        for packet in given.demux():
            if packet.dts is not None and packet.dts * packet.time_base < seconds:
                packet.stream = streams[packet.stream_index]
                made.mux(packet)


def alternate(
    contenders: Mapping[str, Callable[[], float | None]], *, repeats: int
) -> dict[str, list[float]]:
    """Run everybody in turn, nobody always after the same one.

    Parameters
    ----------
    contenders
        By name; what returns seconds has measured itself, what returns None is measured here.

    Returns
    -------
    dict
        Seconds of each repetition.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.perf_counter()
            own = contenders[name]()
            seconds[name].append(time.perf_counter() - started if own is None else own)
    return seconds


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each.

    >>> medians({"a": [3.0, 1.0, 2.0]})
    {'a': 2.0}
    """
    return {name: statistics.median(values) for name, values in seconds.items()}


def counted_runs(repeats: int) -> str:
    """Say how many repetitions there were.

    >>> counted_runs(1), counted_runs(5)
    ('1 run', 'median of 5 runs')
    """
    return "1 run" if repeats == 1 else f"median of {repeats} runs"


def ffmpeg(*arguments: str | Path) -> None:
    """Run the ffmpeg command, silently."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that every section has."""
    found = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    found.add_argument("--quick", action="store_true", help="only see that it runs")
    found.add_argument("--runs", type=int, help="alternating runs (default: each section's own)")
    found.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    found.add_argument(
        "--wait", type=float, default=0, help="minutes to wait for a quiet machine (default 0)"
    )
    return found


def alone(section: Section, name: str, description: str | None) -> None:
    """Measure one section and print it: what ``python -m benchmarks.<section>`` does."""
    options = parser(f"benchmarks.{name}", description).parse_args()
    with tempfile.TemporaryDirectory(prefix="avfeat-bench-") as folder:
        setting = Setting(
            Path(folder), quick=options.quick, runs=options.runs, device=options.device
        )
        wait_for_quiet(options.wait)
        for figure in section(setting):
            show(figure)


def wait_for_quiet(minutes: float) -> float:
    """Wait until other programs leave most of the machine alone, so long at most; give the load."""
    end = time.monotonic() + 60 * minutes
    while (load := os.getloadavg()[0]) > QUIET * (os.cpu_count() or 1) and time.monotonic() < end:
        time.sleep(min(10.0, max(0.0, end - time.monotonic())))
    return load


def show(figure: Figure) -> None:
    """Print a figure."""
    verdict = "" if figure.met is None else " met" if figure.met else " NOT MET"
    print(f"{figure.name}: {figure.value:.3g} {figure.unit}{verdict} ({figure.detail})", flush=True)
    if figure.limit:
        print(f"    limit: {figure.limit}", flush=True)
