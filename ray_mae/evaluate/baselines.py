"""What an encoder is compared with: names of the feature sets of a probe."""

TRAINED, RANDOM, PIXELS = "trained", "random", "pixels"
"""The checkpoint, the same encoder untrained, raw-pixel PCA."""
