"""Media in: one open per clip, frames by a named sampling rule, sound decoded once."""

from avfeat.extract.media.audio import Rate
from avfeat.extract.media.picture import Picture
from avfeat.extract.media.probe import locate_window, probe
from avfeat.extract.media.reader import ClipReader
from avfeat.extract.media.sampling import SAMPLING_RULES, sample_count
from avfeat.extract.media.types import (
    AudioInfo,
    DecodeReport,
    Frame,
    MediaInfo,
    Region,
    Sampling,
    VideoInfo,
    Window,
)

__all__ = [
    "SAMPLING_RULES",
    "AudioInfo",
    "ClipReader",
    "DecodeReport",
    "Frame",
    "MediaInfo",
    "Picture",
    "Rate",
    "Region",
    "Sampling",
    "VideoInfo",
    "Window",
    "locate_window",
    "probe",
    "sample_count",
]
