"""What several test files share, beside the fixtures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from avfeat.stores.files import Files


class Cli:
    """Runs the command line in this process, with the small test backbones registered."""

    def __call__(self, *arguments: object, code: int | None = 0) -> Result:
        """Run; assert the exit code unless it is None."""
        import tiny  # noqa: F401 - registers its backbones

        from avfeat.cli import cli

        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        if code is not None:
            assert result.exit_code == code, result.output
        return result


@dataclass(frozen=True)
class Corpus:
    """A small LLP: media folder, annotation folder, ids of its clips."""

    media: Path
    annotations: Path
    ids: tuple[str, ...]

    @property
    def options(self) -> tuple[str, ...]:
        """Options of ``extract`` that select it, with random weights."""
        return (
            *("--dataset", "llp", "--data", str(self.media)),
            *("--annotations", str(self.annotations), "--weights", "random", "--device", "cpu"),
        )

    def copy(self, folder: Path) -> Corpus:
        """A copy that a test may damage."""
        media, annotations = folder / "media", folder / "annotations"
        shutil.copytree(self.media, media)
        shutil.copytree(self.annotations, annotations)
        return Corpus(media, annotations, self.ids)


def write_llp(folder: Path, **splits: list[str]) -> None:
    """Write the official LLP files for clips that are all labelled ``Dog``."""
    for split, name in (("train", "train"), ("val", "val_pd"), ("test", "test_pd")):
        rows = [f"{clip}\tDog" for clip in splits.get(split, [])]
        text = "\n".join(["filename\tevent_labels", *rows]) + "\n"
        (folder / f"AVVP_{name}.csv").write_text(text)
    for modality in ("audio", "visual"):
        rows = [f"{clip}\t2\t5\tDog" for clip in splits.get("val", []) + splits.get("test", [])]
        text = "\n".join(["filename\tonset\toffset\tevent_labels", *rows]) + "\n"
        (folder / f"AVVP_eval_{modality}.csv").write_text(text)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a store but those of runs/, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "runs" not in path.relative_to(folder).parts
    }


class KilledError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def die_at_write(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let the store's write or copy number `step`, from 0, raise `KilledError`."""
    operations = iter(range(10**6))

    def deadly(original: Callable[..., None]) -> Callable[..., None]:
        def operation(self: Files, *args: object) -> None:
            if next(operations) == step:
                raise KilledError
            original(self, *args)

        return operation

    for name in ("write", "copy"):
        patch.setattr(Files, name, deadly(getattr(Files, name)))
