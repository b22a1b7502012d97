"""The database of a search's Optuna studies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from ray_mae.data.paths import is_remote
from ray_mae.store import Mirror

_DATABASE = "study.db"


def storage_url(output: Path, storage: str | None) -> str:
    """Returns its URL: what the settings say, or a file in the folder of the search."""
    if storage:
        return storage
    return sqlalchemy.URL.create("sqlite", database=str(output / _DATABASE)).render_as_string()


@contextmanager
def database_of(output: Path, storage: str | None) -> Iterator[str]:
    """Gives the URL of the database for a block.

    SQLite writes to no object store: of a search whose output is a URL its file lies on this machine, and
    the store gets it as it changes.

    Args:
        output: folder of the search.
        storage: what the settings say.
    """
    if storage or not is_remote(output):
        yield storage_url(output, storage)
        return
    with Mirror(output) as mirror:
        mirror.fetch([_DATABASE])
        yield storage_url(mirror.local, None)


def without_password(url: str) -> str:
    """Returns the URL as it may be printed."""
    return sqlalchemy.make_url(url).render_as_string(hide_password=True)


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Connects, and creates the tables where there are none. Raises ValueError where that fails."""
    try:
        printable = without_password(url)
    except SQLAlchemyError as error:
        raise ValueError(
            "storage must be the URL of a database, such as postgresql+psycopg://user@host/name"
        ) from error
    try:
        # a search lasts longer than many servers leave an idle connection open
        return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        raise ValueError(
            f"storage {printable} needs a driver that is not installed ({error.name or error}): install "
            "ray-mae[postgres], or the driver of your database"
        ) from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ValueError(
            f"storage {printable} cannot be opened: {reason}; check the URL, and that the database runs"
        ) from error
