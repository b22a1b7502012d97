"""What a table may name: paths, and URLs of stores that somebody named."""

import pytest

from ray_mae.data.ingest.listed import find_problem


@pytest.mark.parametrize(
    "path",
    [
        "http://169.254.169.254/latest/meta-data",
        "http:/host/a.png",
        "https://host/a.png",
        "ftp://host/a.png",
        "github://org:repo@/a.png",
        "memory://a.png",
        "simplecache::http://host/a.png",
        "zip://a.png::http://host/a.zip",
        "s3://bucket/a.png::http://host/a.png",
        "file:///a.png::http://host/a.png",
        "local://a.png::https://host/a.png",
    ],
)
def test_a_url_of_a_store_that_was_not_named_is_refused(path: str) -> None:
    problem = find_problem([path], [], {"s3"})
    assert problem is not None
    assert problem.reason == "other-store"


@pytest.mark.parametrize(
    "path",
    [
        "a.png",
        "/data/a.png",
        "file:///data/a.png",
        "s3://bucket/1::2.png",
        "a::b.png",
        "1.2::3/a.dcm",
    ],
)
def test_paths_and_named_stores_are_taken(path: str) -> None:
    assert find_problem([path], [], {"s3"}) is None
