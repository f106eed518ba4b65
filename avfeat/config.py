"""Settings from a file: flags > AVFEAT_* environment > avfeat.toml > defaults.

Every option of every command can be given as ``AVFEAT_<COMMAND>_<OPTION>`` in the environment, or
in ``avfeat.toml`` in the working folder::

    [extract]
    dataset = "llp"
    backbone = ["senet154", "vggish"]
    data = "/media/llp"
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from avfeat.errors import UsageError

FILE = "avfeat.toml"
ENVIRONMENT = "AVFEAT"


def cache_folder() -> Path:
    """Return the folder for fetched files, which need not exist yet.

    ``$AVFEAT_CACHE``, else ``$XDG_CACHE_HOME/avfeat``, else ``~/.cache/avfeat``.
    """
    if explicit := os.environ.get("AVFEAT_CACHE"):
        return Path(explicit)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "avfeat"
    return Path.home() / ".cache" / "avfeat"


class Option(NamedTuple):
    """What `load` knows of an option: its parameter, and whether it takes a list."""

    parameter: str
    many: bool


def load(
    known: dict[str, dict[str, Option]], folder: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Read avfeat.toml as click's default map.

    Parameters
    ----------
    known
        Command name to its options, by their names on the command line, ``_`` for ``-``.
    folder
        Where the file lies; None for the working folder.

    Raises
    ------
    UsageError
        If the file is not TOML, or names a command or option that does not exist, or gives an
        option what no option takes.
    """
    path = (folder or Path()) / FILE
    try:
        with path.open("rb") as file:
            settings = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # not TOML, or not even UTF-8
        raise UsageError(f"cannot read {path}: {error}") from error
    result: dict[str, dict[str, Any]] = {}
    for command, options in settings.items():
        if command not in known or not isinstance(options, dict):
            raise UsageError(
                f"{path}: unknown section [{command}]; known: {', '.join(sorted(known))}"
            )
        result[command] = {}
        for option, value in options.items():
            name = option.replace("-", "_")
            if name not in known[command]:
                raise UsageError(
                    f"{path}: unknown option {option!r} in [{command}]; "
                    f"known: {', '.join(sorted(known[command]))}"
                )
            values = value if isinstance(value, list) else [value]
            many = known[command][name].many
            if not all(isinstance(v, str | int | float) for v in values) or (
                isinstance(value, list) and not many
            ):
                raise UsageError(f"{path}: {option!r} in [{command}] cannot be {value!r}")
            # As on the command line, where everything is text.
            texts = [str(v) for v in values]
            result[command][known[command][name].parameter] = texts if many else texts[0]
    return result
