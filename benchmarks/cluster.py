"""Dask: what 1, 2 and 4 worker processes make of the same cores, and what one costs.

Workers share the cores out, one thread each at the least; two cores are the limit of what four
workers can do. A run is timed from where the pipeline is full to its last unit: from the first
commit in this process, and from that of as many units as there are workers in a cluster. So neither
side counts loading networks or starting processes.

``python -m benchmarks.cluster`` runs it alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from avfeat.extract import cluster
from avfeat.extract.engine import Silent
from avfeat.extract.plan import Plan
from avfeat.extract.run import RunReport, run
from benchmarks.figure import Figure, most, plain
from benchmarks.setting import TINY, Setting, alone, alternate, counted_runs, medians

NAME = "r2plus1d_18"
CLIPS = 16
WORKERS = (1, 2, 4)
#: Time with one worker over the time in this process.
TARGET = 1.05


class _Commits(Silent):
    def __init__(self) -> None:
        self.times: list[float] = []

    def unit_committed(self, unit: int) -> None:
        self.times.append(time.perf_counter())


def figures(setting: Setting) -> list[Figure]:
    """Measure seconds per clip in this process and on clusters of this machine."""
    name = TINY[0] if setting.quick else NAME
    workers = (1,) if setting.quick else WORKERS
    media = setting.clips(3 if setting.quick else CLIPS)
    repeats = setting.repeats(5)

    def here() -> float:
        return _seconds(
            setting, name, media, run=lambda p, c: run(p, setting.networks(p), listener=c)
        )

    def there(count: int) -> float:
        with cluster.local(count) as client:
            return _seconds(
                setting,
                name,
                media,
                workers=count,
                run=lambda p, c: cluster.run_on(client, p, listener=c),
            )

    if not setting.quick:
        setting.extract([name], setting.clips(1))  # prepares the network
    contenders: dict[str, Callable[[], float]] = {"here": here}
    contenders |= {f"{n}": partial(there, n) for n in workers}
    seconds = medians(alternate(contenders, repeats=repeats))
    setting.forget()
    own = seconds["here"]
    parts = ", ".join(f"{n} worker{'s' * (n > 1)} {1 / seconds[f'{n}']:.2f}" for n in workers)
    detail = (
        f"clips a second: this process {1 / own:.2f}, {parts}; {name}, {CLIPS} clips, "
        f"{counted_runs(repeats)}"
    )
    found = [
        most(
            "cluster: 1 Dask worker, time over that of the in-process engine",
            seconds["1"] / own,
            TARGET,
            detail,
            limit="1: the same work on the same cores",
        )
    ]
    cores = os.cpu_count() or 1
    found += [
        plain(
            f"cluster: throughput of {n} workers over that of 1",
            seconds["1"] / seconds[f"{n}"],
            "x",
            f"{cores} cores, {max(1, cores // n)} threads each, as above",
            limit=f"1: {cores} cores are busy with 1 worker",
        )
        for n in workers[1:]
    ]
    return found


def _seconds(
    setting: Setting,
    name: str,
    media: Path,
    *,
    workers: int = 1,
    run: Callable[[Plan, _Commits], RunReport],
) -> float:
    """Time one run, in seconds per clip of the time that the pipeline was full."""
    commits = _Commits()
    with ExitStack() as stack:
        plan = setting.open(
            stack,
            [name],
            media,
            unit_clips=1,
            processes=workers,
            decoders=max(1, (os.cpu_count() or 1) // 2 // workers),
        )
        run(plan, commits)
    full, last = commits.times[workers - 1], commits.times[-1]
    return (last - full) / (len(commits.times) - workers)


if __name__ == "__main__":
    alone(figures, "cluster", __doc__)
