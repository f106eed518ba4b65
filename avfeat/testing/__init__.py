"""Public test kit: synthetic clips whose frames carry their number, and a check of backbones."""

from avfeat.testing.backbones import check_backbone
from avfeat.testing.clips import AudioTrack, Paint, make_clip, read_number, write_number

__all__ = ["AudioTrack", "Paint", "check_backbone", "make_clip", "read_number", "write_number"]
