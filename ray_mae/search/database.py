"""The database of a search's Optuna studies."""

from pathlib import Path

import optuna
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

_DATABASE = "study.db"


def storage_url(output: Path, storage: str | None) -> str:
    """Returns its URL: what the settings say, or a file in the folder of the search."""
    if storage:
        return storage
    return sqlalchemy.URL.create("sqlite", database=str(output / _DATABASE)).render_as_string()


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
