"""Peak memory of ``avfeat extract``: 1, 10 and 100 clips, and a video of two hours.

The command runs in a process of its own; resident memory of it and of all its children is summed
ten times a second (pages that they share count in each). VGGish and a ResNet of 0.4 M parameters
with random weights: larger networks would hide what the pipeline takes, and take hours.

``python -m benchmarks.memory`` runs it alone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.figure import Figure, most, plain
from benchmarks.setting import ROOT, TINY, Setting, alone, ffmpeg

BACKBONES = ("vggish", TINY[0])
COUNTS = (1, 10, 100)
#: Seconds and size of the long video.
LONG = (7200, "1920x1080")
#: Peak after warm-up over the peak of warm-up.
FLAT = 1.1
#: What of a run counts as warm-up.
WARM = 0.2
_PERIOD = 0.1


@dataclass(frozen=True, slots=True)
class Course:
    """Resident memory over a run: seconds since its start, and bytes."""

    times: list[float]
    sizes: list[int]

    @property
    def peak(self) -> int:
        """Largest, in bytes."""
        return max(self.sizes)

    def peak_between(self, first: float, last: float) -> int:
        """Largest between two shares of the run, in bytes."""
        end = self.times[-1]
        return max(
            size
            for moment, size in zip(self.times, self.sizes, strict=True)
            if first * end <= moment <= last * end
        )


def watch(command: list[str]) -> Course:
    """Run a command and follow the memory of its process tree."""
    times, sizes = [], []
    started = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        size = 0
        try:
            for one in (process, *process.children(recursive=True)):
                size += one.memory_info().rss
        except psutil.NoSuchProcess:
            pass  # it ended while it was looked at
        else:
            times.append(time.perf_counter() - started)
            sizes.append(size)
        time.sleep(_PERIOD)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {process.stderr.read().decode()}")
    process.stderr.close()
    return Course(times, sizes)


def extract(media: Path, setting: Setting) -> Course:
    """Extract every clip in `media`, as a user does."""
    names = TINY[:1] if setting.quick else BACKBONES
    command = [sys.executable, "-m", "avfeat", "extract", "--backbone", ",".join(names)]
    command += ["--dataset", "folder", "--data", str(media), "--out", str(setting.fresh("out"))]
    command += ["--weights", "random", "--device", setting.device, "--engine", setting.engine]
    command += ["--batch-size", "16", "--quiet"]
    return watch(command)


def long_video(seconds: int, size: str, folder: Path) -> Path:
    """Make a video with sound: a minute of a moving low-entropy picture, repeated."""
    path = folder / f"{size}-{seconds}s" / "long.mp4"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    piece = min(seconds, 60)
    minute = path.with_name("minute.ts")
    ffmpeg(
        *("-f", "lavfi", "-i", f"gradients=size={size}:rate=25:duration={piece}:speed=0.01"),
        *("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=16000:duration={piece}"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-crf", "35"),
        *("-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "32k", minute),
    )
    part = path.with_suffix(".part.mp4")
    ffmpeg("-stream_loop", str(seconds // piece - 1), "-i", minute, "-c", "copy", part)
    minute.unlink()
    part.rename(path)
    return path


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure peaks, and whether they stay where they were after warm-up."""
    names = "one tiny network" if setting.quick else "VGGish and a tiny ResNet"
    courses = {n: extract(setting.clips(n), setting) for n in ((1,) if setting.quick else COUNTS)}
    *_, few, many = (1, *courses)
    peaks = ", ".join(f"{n} clips {_mib(c.peak)}" for n, c in courses.items())
    alone_peak = courses[1].peak
    yield most(
        f"memory: peak over {many} clips to that over {few}",
        courses[many].peak / courses[few].peak,
        FLAT,
        f"{peaks}; {names}, processes summed, 1 run",
        limit=f"the same with 1 clip: {_mib(alone_peak)}",
    )
    seconds, size = LONG
    if setting.quick:
        long_video(2, "320x240", setting.folder)  # seen to be made; the course is that of one clip
        course = courses[1]
    else:
        course = extract(long_video(*LONG, ROOT / "build" / "benchmarks").parent, setting)
    before, after = course.peak_between(0, WARM), course.peak_between(WARM, 1)
    steps = ", ".join(_mib(course.peak_between(share / 5, (share + 1) / 5)) for share in range(5))
    yield most(
        f"memory: {seconds / 3600:.2g} h of {size}, after warm-up to before",
        after / before,
        FLAT,
        f"peak of each fifth of {course.times[-1]:.0f} s: {steps}; {names}, 1 run",
        limit="1: nothing is kept",
    )
    yield plain(
        f"memory: peak over {seconds / 3600:.2g} h of {size}",
        course.peak / 2**20,
        "MiB",
        names,
        limit=f"1 clip of 10 s: {_mib(alone_peak)}",
    )


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    alone(figures, "memory", __doc__)
