"""What there is, for people: backbones, weights, data sets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from avfeat.tables import counts, fields, pairs, shaped, table

_ROOMY = 155  # columns of a terminal that tables have all their columns on


def backbones(console: Console, records: list[dict[str, Any]]) -> None:
    """Print the table of backbones; on most terminals without what `backbone` says as well."""
    columns: dict[str, Callable[[dict[str, Any]], object]] = {
        "name": lambda record: record["name"],
        "modality": lambda record: record["modality"],
        "input": lambda record: record["input"],
        "layer": lambda record: record["layer"],
        "row #": lambda record: shaped(record["row_shape"]),
        "rows/10 s #": lambda record: record["rows_per_10s"],
        "GMACs/10 s #": lambda record: f"{record['gmacs_per_10s']:.0f}",
        "params M #": lambda record: f"{record['parameters'] / 1e6:.1f}",
        "MiB": _first_size,
        "licence": lambda record: _short_licence(record["weights"]),
        "cached": lambda record: _yes(any(weights["cached"] for weights in record["weights"])),
    }
    if console.width < _ROOMY:
        shown = ("name", "input", "row #", "rows/10 s #", "MiB", "cached")
        columns = {name: columns[name] for name in shown}
    rows = [[cell(record) for cell in columns.values()] for record in records]
    table(console, "backbones", list(columns), rows, squeezed="input")
    console.print("`avfeat backbones show NAME` has options, recipe, weights and citation.")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _first_size(record: dict[str, Any]) -> str:
    """Size of the default weights, or what their parameters take where no publisher states one."""
    for weights in record["weights"][:1]:
        if weights["size_mib"] is not None:
            return f"{weights['size_mib']:.0f}"
    return f"~{record['parameters'] * 4 / 2**20:.0f}"


def _short_licence(weights: list[dict[str, Any]]) -> str:
    """Return the first words of the default weights' licence; all of it is in `backbone`."""
    return weights[0]["licence"].partition(" (")[0].partition(";")[0] if weights else ""


def _alternatives(axis: list[str], decided_by: str, chosen: str) -> str:
    """Write the alternatives of an axis, the default first; the chosen one is in brackets.

    >>> _alternatives(["env", "music"], "", "music")
    'env (default) | [music]'
    >>> _alternatives(["", "map"], "", "")
    '[none] (default) | map'
    >>> _alternatives(["", "centred", "chunks"], "data set", "")
    '[by data set] (default) | centred | chunks'
    """
    nameless = f"by {decided_by}" if decided_by else "none"
    words = [f"[{one or nameless}]" if one == chosen else one or nameless for one in axis]
    return " | ".join([f"{words[0]} (default)", *words[1:]])


def _adaptation(record: dict[str, Any]) -> str:
    """Write what another kind of data set or device changes.

    >>> _adaptation({"for": "untrimmed videos", "rows_per_10s": 15, "fps": 25.0, "stride": 16})
    '15 rows per 10 s, fps 25.0, stride 16'
    """
    words = {"rows_per_10s": "{} rows per 10 s", "gmacs_per_10s": "{:g} GMACs per 10 s"}
    return ", ".join(
        words.get(key, f"{key} {{}}").format(value) for key, value in record.items() if key != "for"
    )


def backbone(console: Console, record: dict[str, Any]) -> None:
    """Print everything about one backbone."""
    console.print(Text(record["name"], style="bold"))
    pool = record["pool"]
    rows = f"{record['rows_per_10s']} per 10 s, each {shaped(record['row_shape'])}"
    axes = zip(record["options"], record["decided_by"], record["chosen"], strict=True)
    tags = [weights["name"].partition(".")[2] for weights in record["weights"]]
    lines = [
        ("gives", f"{record['description']} ({record['modality']})"),
        ("notes", record["about"].replace("``", "")),
        ("paper", record["paper"]),
        ("layer", record["layer"]),
        ("rows", rows + (f", the {pool['by']} of {pool['items']} items" if pool else "")),
        ("input", record["input"]),
        ("preprocessing", fields(record["preprocessing"])),
        ("sampling", fields(record["sampling"]) if record["sampling"] else "mean of channels"),
        ("parameters", f"{record['parameters']:,}"),
        ("GMACs", f"{record['gmacs_per_10s']:g} per 10 s"),
        ("batch", fields(record["batch_size"])),
        *((f"on {one['for']}", _adaptation(one)) for one in record["adapted"]),
        ("options", "\n".join(_alternatives(*axis) for axis in axes) or "none"),
        ("tags", " | ".join(_chosen_tag(tags, record["tag"])) or "none"),
    ]
    for weights in record["weights"]:
        cached = "in the cache" if weights["cached"] else "not in the cache"
        lines += [
            ("weights", f"{weights['name']}, {cached}"),
            ("  trained on", weights["trained_on"]),
            ("  licence", weights["licence"]),
            ("  cite", weights["citation"]),
            *(("  damaged", problem) for problem in weights["problems"]),
        ]
        for source in weights["sources"]:
            size_mib = f", {source['size_mib']:.0f} MiB" if source["size_mib"] else ""
            digest = source["digest"] or "no digest published: pinned at first use"
            lines.append(("  file", f"{source['file']}, {digest}{size_mib}"))
            lines += [("  from", url) for url in source["urls"]]
    if not record["weights"]:
        lines.append(("weights", "none published: --weights random only"))
    pairs(console, lines)


def _chosen_tag(tags: list[str], chosen: str | None) -> list[str]:
    """Tags of weights, the chosen one in brackets."""
    return [f"[{tag}]" if tag == chosen else tag for tag in tags]


def weights(console: Console, records: list[dict[str, Any]]) -> None:
    """Print the table of weights: below each name its files, of which any one will do."""
    rows = []
    for record in records:
        cached = "damaged" if record["problems"] else _yes(record["cached"])
        rows.append((record["name"], "", "", record["licence"], cached))
        if record["parts"]:
            rows += [(f"  {part}", "", "", "", "") for part in record["parts"].values()]
            continue
        for source in record["sources"]:
            file, mib, digest = _source(source, record["estimated_mib"])
            rows.append((f"  {file}", mib, digest, "", ""))
    columns = ("name and files", "MiB", "digest", "licence", "cached")
    dropped: Collection[str] = ()
    if console.width < _ROOMY:
        dropped = ("licence",) if console.width >= 100 else ("licence", "digest")
    kept = [place for place, column in enumerate(columns) if column not in dropped]
    table(
        console,
        "weights",
        [columns[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
    )
    for problem in dict.fromkeys(p for record in records for p in record["problems"]):
        console.print(Text(problem, "yellow"), soft_wrap=True)


def _source(source: dict[str, Any], estimated_mib: float | None) -> tuple[str, str, str]:
    size_mib = f"~{estimated_mib:.0f}" if estimated_mib else ""
    if source["size_mib"]:
        size_mib = f"{source['size_mib']:.0f}"
    digest = "pinned at first use" if source["digest"] is None else source["digest"]
    kind, colon, value = digest.partition(":")
    return source["file"], size_mib, f"{kind}{colon}{value[:8]}" + ("…" if len(value) > 8 else "")


def checked_weights(console: Console, checked: Sequence[Any]) -> None:
    """Print what `avfeat.extract.weights.manage.verify` found."""
    for one in checked:
        if one.status != "ok":
            style = "red" if one.status == "damaged" else "yellow"
            console.print(Text(f"{one.path}: {one.status}: {one.message}", style), soft_wrap=True)
    counted = {
        status: sum(one.status == status for one in checked)
        for status in ("ok", "damaged", "unknown")
    }
    console.print(counts({status: n for status, n in counted.items() if n or status == "ok"}))


def datasets(console: Console, records: list[dict[str, Any]]) -> None:
    """Print the table of data sets."""
    table(
        console,
        "data sets",
        ("name", "what", "classes #", "sampling", "media files", "annotations' licence"),
        [
            (
                record["name"],
                record["title"],
                len(record["classes"]) or "-",
                record["sampling"],
                record["naming"],
                record["licence"] or "-",
            )
            for record in records
        ],
    )
