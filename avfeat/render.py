"""Tables for people: stores, plans, backbones, data sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"ok": "green", "failed": "red", "degraded": "yellow", "missing": "yellow"}


def table(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Print a table; cells are shown as they are, never taken for markup."""
    grid = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        numeric = column.endswith((" #", "/s", "MiB"))
        grid.add_column(
            column.removesuffix(" #"),
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=column in ("name", "row #"),
        )
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    console.print(grid)


def counts(values: dict[str, int]) -> Text:
    """Write counts by status in colour: ``1 ok, 11848 missing``."""
    parts = [
        Text(f"{number} {status}", style=_STYLES.get(status, ""))
        for status, number in values.items()
    ]
    return Text(", ").join(parts)


def size(number: float) -> str:
    """Write a number of bytes with a binary unit: ``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def store(console: Console, summary: dict[str, Any], *, most_failures: int = 20) -> None:
    """Print what `avfeat.stores.summary.summarise` found."""
    recipe = summary["recipe"]
    weights = recipe["weights"]
    if weights["source"] == "random":
        shown = f"RANDOM, seed {weights['seed']} ({weights['method']}): not real features"
    else:
        shown = f"{weights['tag']}, sha256 {weights['sha256'][:16]}…"
    console.print(Text(summary["store"], style="bold"))
    axes = zip(summary["dimensions"], summary["shape"], strict=True)
    row = " x ".join(map(str, summary["shape"][2:]))
    grid = Table.grid(padding=(0, 2))
    for key, value in (
        ("clips", counts(summary["counts"])),
        ("rows", f"{summary['rows']} of {row} x {summary['dtype']}"),
        ("array", f"features[{', '.join(f'{name}={length}' for name, length in axes)}]"),
        ("backbone", f"{summary['backbone']}, {recipe['backbone']['layer']}"),
        ("weights", Text(shown, style="yellow" if weights["source"] == "random" else "")),
        ("input", _fields(recipe["backbone"]["input"])),
        ("sampling", _fields(recipe["sampling"])),
        ("compute", _fields(recipe["compute"])),
        ("units", f"{summary['units']['committed']} of {summary['units']['all']} committed"),
        ("state", _state(summary)),
        ("fingerprint", summary["fingerprint"]),
    ):
        grid.add_row(
            Text(f"  {key}", style="dim"), value if isinstance(value, Text) else Text(value)
        )
    console.print(grid)
    for status in ("failed", "degraded"):
        clips_of = summary[status]
        if clips_of:
            table(
                console,
                f"{status} clips",
                ("clip", "kind", "message"),
                [(clip["id"], clip["kind"], clip["message"]) for clip in clips_of[:most_failures]],
            )
            if len(clips_of) > most_failures:
                console.print(
                    f"  … and {len(clips_of) - most_failures} more; --json lists them all"
                )


def _state(summary: dict[str, Any]) -> str:
    if not summary["at_rest"]:
        return "a run is writing, or was killed: the same extract command again finishes it"
    return "complete" if summary["complete"] else "not complete: some clips are not extracted yet"


def _fields(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def stages(console: Console, result: dict[str, Any]) -> None:
    """Print what each stage of a run took."""
    wall = max(result["seconds"], 1e-9)
    table(
        console,
        f"stages, {wall:.1f} s in all",
        ("stage", "items #", "items/s #", "busy #", "waits for input #", "for room #", "queue #"),
        [
            (
                name,
                str(stage["items"]),
                f"{stage['items'] / wall:.1f}",
                *(
                    f"{stage[key] / wall:.0%}"
                    for key in ("busy_seconds", "starved_seconds", "blocked_seconds")
                ),
                f"{stage['queue_fill']:.0%}",
            )
            for name, stage in result["stages"].items()
        ],
    )
    console.print(
        "busy and waiting: of the wall time, summed over a stage's threads; queue: how full the "
        "stage found its input. decode counts frames and blocks of sound, write batches."
    )


def run(console: Console, result: dict[str, Any]) -> None:
    """Print what a run of extract came to."""
    grid = Table.grid(padding=(0, 2))
    for entry in result["stores"]:
        grid.add_row(
            Text(entry["store"], style="bold"),
            Text(f"+{entry['new_rows']} rows of {' x '.join(map(str, entry['row_shape']))}"),
            counts(entry["counts"]),
            Text("random weights" if entry["random_weights"] else "", style="yellow"),
        )
    console.print(grid)
    if result["clips_decoded"]:
        console.print(
            f"{result['clips_decoded']} clips in {result['seconds']:.1f} s, "
            f"model running {100 * result['model_share']:.0f} % of it"
        )
    else:
        console.print("nothing to extract: every selected clip is settled")
    if result["failed"]:
        table(
            console,
            "failed clips (--retry-failed does them again)",
            ("backbone", "clip", "kind", "message"),
            [(f["backbone"], f["clip"], f["kind"], f["message"]) for f in result["failed"][:20]],
        )
        if len(result["failed"]) > 20:
            console.print(f"  … and {len(result['failed']) - 20} more; see avfeat inspect --json")
    if result["interrupted"]:
        console.print("interrupted; the same command goes on from here", style="yellow")


def plan(console: Console, summary: dict[str, Any]) -> None:
    """Print what a run of extract would do."""
    console.print(
        f"{summary['dataset']}: {summary['clips']} clips, {summary['selected']} selected, "
        f"{summary['with_media']} of them with media, {summary['to_decode']} to decode"
    )
    table(
        console,
        "plan",
        ("store", "clips #", "units #", "rows #", "bytes #", "batch #", "engine", "weights"),
        [
            (
                entry["store"],
                entry["clips"],
                entry["units"],
                entry["rows"],
                size(entry["bytes"]),
                entry["batch_size"],
                entry["engine"]["name"],
                _weights(entry["weights"]),
            )
            for entry in summary["stores"]
        ],
    )
    reasons = {(entry["engine"]["name"], entry["engine"]["reason"]) for entry in summary["stores"]}
    for name, reason in sorted(reasons):
        console.print(f"engine {name}: {reason}", soft_wrap=True, markup=False)
    for entry in summary["stores"]:
        record = entry["weights"]
        if not record["at_hand"]:
            mib = f" ({record['size_mib']:.0f} MiB)" if record["size_mib"] else ""
            console.print(f"{record['weights']}: {record['url']}{mib}", soft_wrap=True)
            console.print(f"  to {record['path']}", soft_wrap=True)


def _weights(record: dict[str, Any]) -> str:
    return f"{record['weights']}, {'at hand' if record['at_hand'] else 'to be fetched'}"


def verified(console: Console, report: Any) -> None:
    """Print what `avfeat.stores.verify.verify` found."""
    for problem in report.problems:
        console.print(Text(f"{report.store}: {problem}", style="red"))
    for note in report.notes[:20]:
        console.print(Text(f"{report.store}: note: {note}", style="yellow"))
    if report.problems:
        console.print(
            "To mend a unit, delete its ledger/<unit>.json and run the same extract command again: "
            "its clips are done again. Other files but manifest.json are rebuilt by that command."
        )
        verdict = Text(f"{len(report.problems)} problems", "red")
    elif report.finished:
        verdict = Text("whole", "green")
    else:
        verdict = Text("no damage, but not finished", "yellow")
    console.print(
        Text(f"{report.store}: ")
        + verdict
        + Text(
            f" ({report.units} units, {report.clips} clips, {report.rows} rows, "
            f"{report.files} files checked)"
        )
    )


def backbones(console: Console, records: list[dict[str, Any]]) -> None:
    """Print the table of backbones."""
    table(
        console,
        "backbones",
        (
            "name",
            "modality",
            "input",
            "layer",
            "row #",
            "rows/10 s #",
            "GMACs/10 s #",
            "params M #",
            "MiB",
            "licence",
            "cached",
        ),
        [
            (
                record["name"],
                record["modality"],
                record["input"],
                record["layer"],
                " x ".join(map(str, record["row_shape"])),
                record["rows_per_10s"],
                f"{record['gmacs_per_10s']:.0f}",
                f"{record['parameters'] / 1e6:.1f}",
                _first_size(record),
                _short_licence(record["weights"]),
                "yes" if any(weights["cached"] for weights in record["weights"]) else "no",
            )
            for record in records
        ],
    )
    console.print("`avfeat backbones show NAME` has options, recipe, weights and citation.")


def _first_size(record: dict[str, Any]) -> str:
    """Size of the default weights, or what their parameters take where no publisher states one."""
    for weights in record["weights"][:1]:
        if weights["size_mib"] is not None:
            return f"{weights['size_mib']:.0f}"
    return f"~{record['parameters'] * 4 / 2**20:.0f}"


def _short_licence(weights: list[dict[str, Any]]) -> str:
    """Return the first words of the default weights' licence; all of it is in `backbone`."""
    return weights[0]["licence"].partition(" (")[0].partition(";")[0] if weights else ""


def _alternatives(axis: list[str], decided_by: str) -> str:
    """Write the alternatives of an axis, the default first.

    >>> _alternatives(["env", "music"], "")
    'env (default) | music'
    >>> _alternatives(["", "map"], "")
    '(default) | map'
    >>> _alternatives(["", "centred", "chunks"], "data set")
    '(default: by data set) | centred | chunks'
    """
    default, *others = axis
    how = f"(default: by {decided_by})" if decided_by else "(default)"
    return " | ".join([f"{default} {how}".lstrip(), *others])


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
    rows = f"{record['rows_per_10s']} per 10 s, each {' x '.join(map(str, record['row_shape']))}"
    lines = [
        ("about", record["about"].replace("``", "")),
        ("is", f"{record['description']} ({record['modality']})"),
        ("paper", record["paper"]),
        ("layer", record["layer"]),
        ("rows", rows + (f", the {pool['by']} of {pool['items']} items" if pool else "")),
        ("input", record["input"]),
        ("preprocessing", _fields(record["preprocessing"])),
        ("sampling", _fields(record["sampling"]) if record["sampling"] else "mean of channels"),
        ("parameters", f"{record['parameters']:,}"),
        ("GMACs", f"{record['gmacs_per_10s']:g} per 10 s"),
        ("batch", _fields(record["batch_size"])),
        *((f"on {one['for']}", _adaptation(one)) for one in record["adapted"]),
        (
            "options",
            "\n".join(map(_alternatives, record["options"], record["decided_by"])) or "none",
        ),
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
    grid = Table.grid(padding=(0, 2))
    for key, value in lines:
        grid.add_row(Text(f"  {key}", style="dim"), Text(value))
    console.print(grid)


def weights(console: Console, records: list[dict[str, Any]]) -> None:
    """Print the table of weights: one line per file, the alternatives below the first."""
    rows = []
    for record in records:
        parts = " + ".join(record["parts"].values())
        sources = [] if parts else record["sources"]
        first, *others = sources or [{"file": parts, "size_mib": None, "digest": ""}]
        cached = "damaged" if record["problems"] else "yes" if record["cached"] else "no"
        licence = record["licence"]
        rows.append((record["name"], *_source(first), licence, cached))
        rows += [("", *_source(other), "", "") for other in others]
    table(console, "weights", ("name", "file", "MiB", "digest", "licence", "cached"), rows)
    for problem in dict.fromkeys(p for record in records for p in record["problems"]):
        console.print(Text(problem, "yellow"), soft_wrap=True)


def _source(source: dict[str, Any]) -> tuple[str, str, str]:
    size_mib = f"{source['size_mib']:.0f}" if source["size_mib"] else ""
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
