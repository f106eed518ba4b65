"""Weights of the backbones: where they come from, whether they are the right ones, random ones."""
