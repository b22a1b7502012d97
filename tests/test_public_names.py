"""What the Python API names is there."""

import pytest

import ray_mae


@pytest.mark.parametrize("name", ray_mae.__all__)
def test_every_name_of_the_package_can_be_imported(name: str) -> None:
    assert getattr(ray_mae, name).__name__ == name
