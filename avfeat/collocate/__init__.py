"""Which backbones belong together: scores of stored features, and task models trained on them."""
