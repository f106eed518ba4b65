"""The papers' diagnostics on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from avfeat.tables import table

_NONE = "-"

# Wu et al. 2022, Table 1, and 2021, Table 2.
_PAPERS = (
    "in the papers 0.9714 within modalities; their 0.2918 across, distinguish 0.7193 and precision "
    "0.3186 are of another space and other readings, not to be compared"
)


def diagnostics(console: Console, found: dict[str, Any]) -> None:
    """Print what `avfeat.collocate.diagnostics.diagnose` found."""
    _recall(console, found["recall"], found["sampled"])
    _discriminator(console, found["discriminator"])
    _lags(console, found["lags"])
    _classes(console, found["classes"])


def _recall(console: Console, recall: dict[str, Any], sampled: dict[str, Any]) -> None:
    title = f"nearest of {sampled['segments']} segments of {sampled['split']}: same label? (chance)"
    if "reason" in recall:
        _note(console, f"{title}: {recall['reason']}")
        return
    rows = [(name, _level(one), _NONE, _NONE) for name, one in recall["unimodal"].items()]
    for name, one in recall["multimodal"].items():
        levels = ("recall", "distinguish", "precision")
        rows.append((name, *(_level(one.get(level, one)) for level in levels)))
    table(console, title, ("features", "recall@1 #", "distinguish #", "precision #"), rows)
    _note(console, _PAPERS)


def _level(level: dict[str, Any]) -> str:
    if level.get("value") is None:
        return _NONE
    return f"{level['value']:.4f} ({level['chance']:.4f})"


def _discriminator(console: Console, found: dict[str, Any]) -> None:
    preparations = found["preparations"]
    rows = []
    for modality in ("audio", "visual"):
        if "reason" in found[modality]:
            _note(console, f"telling {modality} networks apart: {found[modality]['reason']}")
            continue
        for name, pair in found[modality].items():
            cells = [_accuracies(pair, preparation) for preparation in preparations]
            rows.append((name, *cells))
    if not rows:
        return
    table(
        console,
        f"which network made this? linear / non-linear accuracy; chance is {found['chance']}",
        ("networks", *(f"{name} #" for name in preparations)),
        rows,
    )
    for name, meaning in preparations.items():
        _note(console, f"{name}: {meaning}")


def _accuracies(pair: dict[str, Any], preparation: str) -> str:
    if "reason" in pair:
        return _NONE
    return " / ".join(f"{value:.3f}" for value in pair["accuracy"][preparation].values())


def _lags(console: Console, lags: dict[str, Any]) -> None:
    similarity = lags["similarity"]
    rows = [
        (f"cosine: {name}", curve["cosine"], curve["elsewhere"])
        for name, curve in {**similarity["backbones"], **similarity["pairs"]}.items()
        if "reason" not in curve
    ]
    labels = lags["labels"]
    if "reason" in labels:
        _note(console, f"labels by lag: {labels['reason']}")
    else:
        rows += [
            (f"labels {form.replace('_', ' ')}: {name}", curve, None)
            for form in ("equal", "per_class", "conditional")
            for name, curve in ((name, each[form]) for name, each in labels.items())
        ]
    if not rows:
        return
    shown = _shown(len(rows[0][1]))
    table(
        console,
        "similarity within clips against lag in seconds; elsewhere: in other clips",
        ("of", *(f"{lag} #" for lag in shown), "elsewhere #"),
        [
            (name, *(_number(curve[lag]) for lag in shown), _number(elsewhere))
            for name, curve, elsewhere in rows
        ],
    )


def _shown(lags: int) -> list[int]:
    """Lags of which columns fit on a terminal, the first and the last among them."""
    return sorted({lag for lag in (0, 1, 2, 5, lags - 1) if 0 <= lag < lags})


def _classes(console: Console, found: dict[str, Any]) -> None:
    if "reason" in found:
        _note(console, f"training sets of fewer classes: {found['reason']}")
        return
    names = list(found["reads"])
    table(
        console,
        "best pair under training sets of fewer classes (Kendall tau with all classes)",
        ("classes #", "clips #", *names),
        [
            (one["classes"], one["clips"], *(_best(one, name) for name in names))
            for one in found["subsets"]
        ],
    )
    if still := [name for name, reads in found["reads"].items() if reads == "target"]:
        _note(console, f"these look at the target split, which stays: {', '.join(still)}")


def _best(subset: dict[str, Any], name: str) -> str:
    if "reason" in subset or not subset["ranking"][name]:
        return _NONE
    return f"{' + '.join(subset['ranking'][name][0])} ({_number(subset['tau'][name]['value'])})"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _note(console: Console, text: str) -> None:
    console.print(f"  {text}", style="dim", markup=False)
