"""Public test kit: synthetic clips whose frames carry their number."""

from avfeat.testing.clips import AudioTrack, Paint, make_clip, read_number, write_number

__all__ = ["AudioTrack", "Paint", "make_clip", "read_number", "write_number"]
