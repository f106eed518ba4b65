"""What became of clips, for people: plans, runs, stores."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.text import Text

from avfeat.tables import counts, fields, pairs, shaped, size, table
from avfeat.words import counted, without_name

_MOST_CLIPS = 20  # that a list names


def store(console: Console, summary: dict[str, Any]) -> None:
    """Print what `avfeat.stores.summary.summarise` found."""
    recipe = summary["recipe"]
    weights = recipe["weights"]
    drawn = weights["source"] in ("random", "synthetic")
    if drawn:
        source = weights["source"].upper()
        shown = f"{source}, seed {weights['seed']} ({weights['method']}): not real features"
    else:
        shown = f"{weights['tag']}, sha256 {weights['sha256'][:16]}…"
    console.print(Text(summary["store"], style="bold"), soft_wrap=True)
    axes = zip(summary["dimensions"], summary["shape"], strict=True)
    row = " x ".join(map(str, summary["shape"][2:]))
    pairs(
        console,
        (
            ("clips", counts(summary["counts"])),
            ("rows", f"{summary['rows']} of {row} x {summary['dtype']}"),
            ("array", f"features[{', '.join(f'{name}={length}' for name, length in axes)}]"),
            ("backbone", f"{summary['backbone']}, {recipe['backbone']['layer']}"),
            ("weights", Text(shown, style="yellow" if drawn else "")),
            ("input", fields(recipe["backbone"]["input"])),
            ("sampling", fields(recipe["sampling"])),
            ("compute", fields(recipe["compute"])),
            ("units", f"{summary['units']['committed']} of {summary['units']['all']} committed"),
            ("state", _state(summary)),
            ("fingerprint", summary["fingerprint"]),
        ),
    )
    for status in ("failed", "degraded"):
        clips_of = summary[status]
        if clips_of:
            table(
                console,
                f"{status} clips",
                ("clip", "kind", "message"),
                [
                    (clip["id"], clip["kind"], without_name(clip["message"], clip["id"]))
                    for clip in clips_of[:_MOST_CLIPS]
                ],
            )
            if len(clips_of) > _MOST_CLIPS:
                console.print(f"… and {len(clips_of) - _MOST_CLIPS} more; --json lists them all")


def _state(summary: dict[str, Any]) -> str:
    if not summary["at_rest"]:
        return "a run is writing, or was killed: the same command again finishes it"
    if not summary["complete"]:
        return "not complete: some clips are not extracted yet"
    failed = len(summary["failed"])
    return f"complete ({failed} failed)" if failed else "complete"


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
                "-" if name == "decode" else f"{stage['queue_fill']:.0%}",  # it takes files
            )
            for name, stage in result["stages"].items()
        ],
    )
    console.print(
        "busy and waiting: of the wall time, summed over a stage's threads on all workers; queue: "
        "how full the stage found its input. decode counts frames and blocks of sound, commit "
        "units, the others items."
    )


def run(console: Console, result: dict[str, Any]) -> None:
    """Print what a run of extract came to."""
    stores = [
        (entry["store"], f"+{counted(entry['new_rows'], 'row')} of {shaped(entry['row_shape'])}")
        for entry in result["stores"]
    ]
    first, second = (max(map(len, column), default=0) for column in zip(*stores, strict=True))
    for entry, (url, rows) in zip(result["stores"], stores, strict=True):
        line = Text(f"{url:{first}}  {rows:{second}}  ") + counts(entry["counts"])
        line.stylize("bold", 0, len(url))
        if entry["random_weights"]:
            line.append("  random weights", style="yellow")
        console.print(line, soft_wrap=True)
    if result["clips_decoded"]:
        console.print(
            f"{counted(result['clips_decoded'], 'clip')} in {result['seconds']:.1f} s, "
            f"model running {100 * result['model_share']:.0f} % of it"
        )
    elif not result["interrupted"]:
        console.print("nothing to extract: every selected clip is settled")
    if result["failed"]:
        _failed(console, result)
    if result["interrupted"]:
        console.print("interrupted; the same command goes on from here", style="yellow")


def _failed(console: Console, result: dict[str, Any]) -> None:
    """Print the clips that failed, each once; of a run that had nothing to do, how many."""
    clips: dict[tuple[str, str, str], list[str]] = {}
    for one in result["failed"]:
        message = without_name(one["message"], one["clip"])
        clips.setdefault((one["clip"], one["kind"], message), []).append(one["backbone"])
    number = len({clip for clip, _, _ in clips})
    stores = {entry["backbone"]: entry["store"] for entry in result["stores"]}
    most, _ = Counter(one["backbone"] for one in result["failed"]).most_common(1)[0]
    everything = f"all: avfeat inspect {stores[most]}"
    again = "--retry-failed does them again"
    if not result["clips_decoded"]:
        have = f"{counted(number, 'clip')} failed before"
        console.print(f"{have} ({again}; {everything})", soft_wrap=True, markup=False)
        return
    table(
        console,
        f"failed clips ({again})",
        ("clip", "kind", "message", "backbones"),
        [
            (*clip, "all" if len(names) == len(stores) else ", ".join(names))
            for clip, names in list(clips.items())[:_MOST_CLIPS]
        ],
    )
    if len(clips) > _MOST_CLIPS:
        more = f"… and {len(clips) - _MOST_CLIPS} more; {everything}"
        console.print(more, soft_wrap=True, markup=False)


def plan(console: Console, summary: dict[str, Any]) -> None:
    """Print what a run of extract would do."""
    console.print(
        f"{summary['dataset']}: {counted(summary['clips'], 'clip')}, "
        f"{summary['selected']} selected, "
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
        console.print(Text(f"{report.store}: {problem}", style="red"), soft_wrap=True)
    for note in report.notes[:20]:
        console.print(Text(f"{report.store}: note: {note}", style="yellow"), soft_wrap=True)
    if report.problems:
        console.print(_mending(report), soft_wrap=True, markup=False)
        verdict = Text(counted(len(report.problems), "problem"), "red")
    elif report.finished:
        verdict = Text("whole", "green")
    else:
        verdict = Text("no damage, but not finished", "yellow")
    console.print(
        Text(f"{report.store}: ")
        + verdict
        + Text(
            f" ({counted(report.units, 'unit')}, {counted(report.clips, 'clip')}, "
            f"{counted(report.rows, 'row')}, {counted(report.files, 'file')} checked)"
        ),
        soft_wrap=True,
    )


def _mending(report: Any) -> str:
    """Say what to do about the problems of a store."""
    rest = "run the same command again"
    if report.entries:
        return (
            f"To mend it, delete {' '.join(report.entries)} and {rest}: their clips are done again"
        )
    return f"To mend it, {rest}: it rebuilds all but manifest.json and what a unit holds"
