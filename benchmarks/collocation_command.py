"""The command as its users run it: what it says, and how much time and memory it took.

``python -m benchmarks.collocation_command ARGUMENTS`` runs ``avfeat collocate ARGUMENTS`` and
prints its peak of resident memory, in bytes, in a last line. It is a module of its own, so that
this is not that of what a benchmark imports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avfeat.cli import cli

# Not from another module of the benchmarks, whose imports would count.
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command that ended printed, and what it took.

    Attributes
    ----------
    document
        Of ``--json``.
    seconds
        Wall time, with the start of Python and its imports.
    peak
        Resident memory, in bytes.
    """

    document: dict[str, Any]
    seconds: float
    peak: int


def collocate(out: Path, *options: str) -> Ran:
    """Run ``avfeat collocate --json`` on the stores under a folder, in a process of its own."""
    module = [sys.executable, "-m", "benchmarks.collocation_command"]
    command = [*module, "--out", str(out), *options, "--json", "--quiet"]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - started
    said, _, peak = done.stdout.rstrip().rpartition("\n")
    return Ran(json.loads(said), seconds, int(peak))


def _peak() -> int:
    """Read VmHWM. The peak of getrusage would be the parent's too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return 1024 * int(value.split()[0])
    raise RuntimeError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    cli(["collocate", *sys.argv[1:]], standalone_mode=False)
    print(_peak())
