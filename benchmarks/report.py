"""What a run leaves: benchmarks/results/latest.json, and the tables of documents."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.figure import Figure
from benchmarks.setting import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
#: Section to a page of its own, which shows its table besides.
PAGES = {"collocation": ROOT / "docs" / "collocation.md"}
_LIBRARIES = ("avfeat", "torch", "openvino", "av", "numpy", "pillow", "zarr", "distributed")
_OTHERS = ("decord", "torchcodec")

Record = dict[str, Any]


def record(section: str, figure: Figure, *, load: float) -> Record:
    """Return a figure as plain data, with the day and the load before its section began."""
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"section": section, **dataclasses.asdict(figure), "date": now, "load": round(load, 1)}


def machine() -> Record:
    """Describe the machine and the versions."""
    versions = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *_OTHERS):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "torch_threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": versions,
    }


def merge(old: Record, new: Sequence[Record], *, order: Sequence[str]) -> list[Record]:
    """Replace figures by those of the same name that were measured now; the others are kept.

    >>> kept = {"figures": [{"section": "b", "name": "2"}, {"section": "a", "name": "1"}]}
    >>> new = [{"section": "b", "name": "2", "value": 5}, {"section": "b", "name": "3"}]
    >>> [(one["name"], one.get("value")) for one in merge(kept, new, order=["a", "b"])]
    [('1', None), ('2', 5), ('3', None)]
    """
    keyed = {(one["section"], one["name"]): one for one in (*old.get("figures", ()), *new)}
    known = [one for one in keyed.values() if one["section"] in order]
    return sorted(known, key=lambda one: order.index(one["section"]))


def write(new: Sequence[Record], *, order: Sequence[str], not_measured: Sequence[str]) -> None:
    """Write the results, the document, and the pages of sections that have any.

    Parameters
    ----------
    new
        Figures of this run; others that were measured before are kept.
    order
        All sections.
    not_measured
        Sentences on what was not.
    """
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    document = machine()
    document["not_measured"] = list(not_measured)
    document["figures"] = merge(old, new, order=order)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    DOCUMENT.write_text(between(DOCUMENT.read_text(), "results", table(document)))
    for section, page in PAGES.items():
        own = [one for one in document["figures"] if one["section"] == section]
        if own:
            content = table({**document, "figures": own, "not_measured": []})
            page.write_text(between(page.read_text(), "benchmarks", content))


def table(document: Record) -> str:
    """Return the tables of all sections, as Markdown.

    Parameters
    ----------
    document
        As in latest.json.
    """
    box, versions = document["machine"], document["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [
        f"{box['processor']}, {box['cores']} cores, {box['memory_gib']} GiB, "
        f"{box['capability']}, GPU: {box['gpu'] or 'none'}; torch with {box['torch_threads']} "
        f"threads. {named}.",
    ]
    parts += [f"Not measured: {sentence}" for sentence in document["not_measured"]]
    sections = dict.fromkeys(one["section"] for one in document["figures"])
    for section in sections:
        own = [one for one in document["figures"] if one["section"] == section]
        dates = " to ".join(sorted({one["date"] for one in own}))
        loads = sorted(one["load"] for one in own)
        load = "" if loads[-1] < 1 else f", load {loads[0]} to {loads[-1]}"
        lines = [f"### {section}, {dates}{load}", "", *_lines(own)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def between(text: str, name: str, content: str) -> str:
    """Put `content` between ``<!-- name: begin … -->`` and ``<!-- name: end -->``.

    >>> between("a\\n<!-- t: begin (x) -->\\nold\\n<!-- t: end -->\\nb", "t", "new")
    'a\\n<!-- t: begin (x) -->\\n\\nnew\\n\\n<!-- t: end -->\\nb'
    """
    pattern = rf"(<!-- {name}: begin[^>]*-->\n).*?(<!-- {name}: end -->)"
    found, n = re.subn(pattern, lambda m: f"{m[1]}\n{content}\n\n{m[2]}", text, flags=re.DOTALL)
    if n != 1:
        raise RuntimeError(f"{n} places for {name} instead of one")
    return found


def _lines(own: Sequence[Record]) -> list[str]:
    heads = ["figure", "value", "target", "met", "detail", "limit"]
    lines = [heads, ["---"] * len(heads)]
    for one in own:
        sign = {"least": ">=", "most": "<="}[one["bound"]]
        goal = "-" if one["target"] is None else f"{sign} {one['target']:g}"
        met = {True: "yes", False: "**no**", None: "-"}[one["met"]]
        value = f"{one['value']:.3g} {one['unit']}"
        lines.append([one["name"], value, goal, met, one["detail"], one["limit"] or "-"])
    return [f"| {' | '.join(line)} |" for line in lines]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
