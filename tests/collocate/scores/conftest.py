"""Features of known make, and the real segment labels of LLP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avfeat import datasets


@pytest.fixture(scope="session")
def llp_dense(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Segment labels of LLP's test split, bool [1200, 10, 2, 25]."""
    folder = shared / "data" / "llp"
    if not folder.is_dir():
        pytest.skip("no LLP annotations in ../shared/data")
    media = tmp_path_factory.mktemp("media")
    manifest = datasets.get("llp").load(annotations=folder, data=media)
    clips = [clip for clip in manifest.clips if clip.split == "test"]
    dense = np.zeros((len(clips), 10, 2, 25), bool)
    for index, clip in enumerate(clips):
        for event in clip.events:
            row = manifest.classes.index(event.label)
            modality = ("audio", "visual").index(event.modality)
            dense[index, int(event.onset) : int(event.offset), modality, row] = True
    return dense
