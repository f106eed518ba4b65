"""Scores of stored features and of pairs of them, without any training."""
