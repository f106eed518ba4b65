"""The oracles' script is for another Python, which has TensorFlow."""

collect_ignore = ["oracles_tf.py"]
