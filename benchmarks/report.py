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


def record(section: str, figure: Figure, *, load: float, device: str = "cpu") -> Record:
    """Return a figure as plain data: with the day, the load before its section began, and where.

    Parameters
    ----------
    device
        Torch device of the networks.
    """
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    found = {"section": section, **dataclasses.asdict(figure), "date": now, "load": round(load, 1)}
    return {**found, "device": device, **machine()}


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
    """Replace figures by those of the same name and device measured now; the others are kept.

    >>> kept = [{"section": "b", "name": "2", "device": "cpu"}]
    >>> kept += [{"section": "a", "name": "1", "device": "cpu"}]
    >>> new = [{**kept[0], "value": 5}, {**kept[0], "device": "cuda"}]
    >>> found = merge({"figures": kept}, new, order=["a", "b"])
    >>> [(one["name"], one["device"], one.get("value")) for one in found]
    [('1', 'cpu', None), ('2', 'cpu', 5), ('2', 'cuda', None)]
    """
    figures = (*old.get("figures", ()), *new)
    keyed = {(one["section"], one["name"], one["device"]): one for one in figures}
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
    document: Record = {
        "not_measured": list(not_measured),
        "figures": merge(old, new, order=order),
    }
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

    The first figure's machine stands above all, another machine above the table of what was
    measured there.

    Parameters
    ----------
    document
        As in latest.json.
    """
    figures = document["figures"]
    first = _where(figures[0])
    parts = [first, *(f"Not measured: {sentence}" for sentence in document["not_measured"])]
    for section, where in dict.fromkeys((one["section"], _where(one)) for one in figures):
        own = [one for one in figures if (one["section"], _where(one)) == (section, where)]
        dates = " to ".join(sorted({one["date"] for one in own}))
        loads = sorted(one["load"] for one in own)
        load = "" if loads[-1] < 1 else f", load {loads[0]} to {loads[-1]}"
        lines = [f"### {section}, {dates}{load}", ""]
        if where != first:
            lines += [where, ""]
        parts.append("\n".join([*lines, *_lines(own)]))
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


def _where(one: Record) -> str:
    """Describe where a figure was measured."""
    box = one["machine"]
    named = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    return (
        f"{box['processor']}, {box['cores']} cores, {box['memory_gib']} GiB, {box['capability']}, "
        f"GPU: {box['gpu'] or 'none'}; networks on {one['device']}, torch with "
        f"{box['torch_threads']} threads. {named}."
    )


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
