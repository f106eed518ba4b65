"""``avfeat demo``: the main job on three synthetic clips, with a picture of what came out."""

from avfeat.demo.run import run_demo

__all__ = ["run_demo"]
