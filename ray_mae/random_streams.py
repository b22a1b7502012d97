"""Streams of random numbers: every use of a sample's key has a number of its own, in one place.

A new use takes a new number, so that it does not change what the others draw. Numbers that were used once are
not used again: runs that began before must go on as they were.
"""

from enum import IntEnum


class Stream(IntEnum):
    """On the device, by `ray_mae.transforms.keyed_random`."""

    MASK = 1
    CROP = 2
    JITTER = 3
    FLIP = 4
    PARALLEL = 5
    LEVEL = 6
    NOISE = 7
    WARP = 8
    REPEAT = 9
    DECODE = 10
    CURVE = 11
    BLOCK = 12
    GREEN = 13
    GUIDE = 14
    HINT = 15
    DROP_PATH = 16
    SLICE = 17
    CROPS = 19
    BLUR = 20
    PARTNER = 21
    HIDDEN = 22
    DIRECTION = 23
    CONTRAST = 26
    GRAIN = 27
    MIRROR = 28
    PAIR = 29
    TARGET = 30
    FUSE = 31
    REGION = 32


class Draw(IntEnum):
    """Where rows become batches, by `ray_mae.data.loading.order.mix`."""

    FOLDERS = -1
    """In the place of an epoch: which folder of shards comes when."""
    REPEATS = -2
    """Before an epoch: which rows are drawn again in it."""
    VOCABULARY = -3
    """Which files a tokenizer is trained on, of a large archive."""
    PLACE = 1
    """Of a study plus the slot of a view, at most 16; of a volume plus the axis of a crop, at most 3."""
    FOREGROUND = 11
    """Of a volume: whether a crop is around a voxel of a class, of which class, and around which voxel."""
    CLASS = 12
    VOXEL = 13
    WINDOW = 14
    """Of a view: the window that shows it, by its width and its centre."""
