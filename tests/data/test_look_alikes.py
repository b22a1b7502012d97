"""Pairs of images that look the same: every one that a comparison of all with all would find, once."""

from itertools import combinations

import numpy as np
from PIL import Image

from ray_mae.data.look_alikes import MOST_BITS, ContentIndex, bits_of


def test_what_comparing_all_with_all_finds_is_found_once() -> None:
    draw = np.random.default_rng(0)
    films = draw.random((40, 256)) < 0.5
    images = []
    for number in range(600):  # copies of few films, of which up to 12 bits differ
        bits = films[number % 40].copy()
        bits[draw.choice(256, draw.integers(13), replace=False)] ^= True
        split, patient = ("train", "val", "test")[draw.integers(3)], f"p{draw.integers(9)}"
        images.append((("here", "there")[draw.integers(2)], split, patient, bits))
    seen = ContentIndex()
    for dataset, split, patient, bits in images:
        seen.add(dataset, split, patient, bits.tobytes(), np.packbits(bits).tobytes())
    same, alike = seen.same(), seen.alike()
    for place, group in enumerate(("datasets", "splits")):
        expected = sum(
            a[place] != b[place] and a[2] != b[2] and (a[3] != b[3]).sum() <= MOST_BITS
            for a, b in combinations(images, 2)
        )
        assert alike[group].number == expected > 100
        contents: dict[bytes, set[str]] = {}
        for image in images:
            contents.setdefault(image[3].tobytes(), set()).add(image[place])
        assert same[group].number == sum(len(found) > 1 for found in contents.values()) > 0


def test_bits_tell_films_apart_and_not_their_sizes() -> None:
    draw = np.random.default_rng(0)
    one, other = (
        Image.fromarray(draw.integers(0, 256, (9, 9), dtype=np.uint8)).resize((300, 260))
        for _ in range(2)
    )
    bits = [
        np.unpackbits(np.frombuffer(bits_of(np.asarray(image)), np.uint8))
        for image in (one, one.resize((150, 130)), other)
    ]
    assert (bits[0] != bits[1]).sum() <= MOST_BITS
    assert (bits[0] != bits[2]).sum() > 60
