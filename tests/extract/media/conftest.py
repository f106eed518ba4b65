from __future__ import annotations

from pathlib import Path

import pytest
from media_cases import SIZE, TONE, MakeClip

from avfeat.testing import make_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> MakeClip:
    """Make a small clip once per name and session."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str, **arguments: object) -> Path:
        path = folder / name
        if not path.exists():
            make_clip(path, **{"size": SIZE, "duration": 4.0, "audio": TONE, **arguments})
        return path

    return make
