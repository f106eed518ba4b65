"""Typed descriptions of what a store holds: its clips, its recipe, its manifest."""
