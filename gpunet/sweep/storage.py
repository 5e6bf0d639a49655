"""Where a sweep is kept: any storage of Optuna's, opened so that no two workers can take the same trial."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages._rdb.models import BaseModel

from gpunet.addresses import cleaned, harmless, has_secret, public
from gpunet.errors import DataError, InputError, RunError, printable
from gpunet.extras import install
from gpunet.interrupts import contextmanager
from gpunet.limits import DAMAGE
from gpunet.sweep.journal import NO_JOURNAL, DamagedError, Journal

WAIT = 60.0  # seconds for a lock of the database, or for its answer
TRIES = 4  # two workers that come first at the same time make the same tables
DRIVERS = {  # permissively licensed; SQLAlchemy's own defaults are under the LGPL and the GPL
    "postgresql": "postgresql+pg8000", "postgres": "postgresql+pg8000", "mysql": "mysql+pymysql",
}  # fmt: skip
LOST = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError)  # what a storage raises that fails
_QUERY = re.compile(r"\?\w+=.*", re.DOTALL)  # another ? is part of the file's name
KEPT = "surrogateescape"  # bytes of a file's name that are no text
DATABASES = (".db", ".sqlite", ".sqlite3")
FORMS = (
    "expected sqlite:///file.db, postgresql://user@host/name, mysql://…, journal:///file.log, or a path: .db for "
    "SQLite, anything else for a journal"
)

NO_SWEEP = "holds no sweep: start one with gpunet sweep … --storage URL"

LONGEST = 64 << 20  # bytes of one value in an SQLite file, which may be asked to make up any
UNSOUND = (*DAMAGE, RuntimeError, optuna.exceptions.OptunaError)  # what Optuna and its drivers raise on damaged content


def storage_url(given: str) -> str:
    """The URL in full: a path stands for an SQLite file or a journal, and databases get the driver that we install."""
    scheme, separator, rest = given.partition("://")
    mistaken = not scheme if separator else harmless(given) != given  # as a path it would be shown
    if not given.strip() or mistaken:
        raise InputError(f"the storage {public(given) if given.strip() else given!r} is malformed: {FORMS}")
    if not separator:
        kind = "sqlite" if Path(given).suffix.lower() in DATABASES else "journal"
        return file_url(kind, Path(os.path.expanduser(given)))
    scheme = {"sqlite+pysqlite": "sqlite"}.get(scheme, scheme)
    if scheme in ("sqlite", "journal"):
        if not rest.startswith("/") or not rest[1:] or rest == "/:memory:":
            raise InputError(f"the storage '{public(given)}' names no file: {FORMS}")
        query = _QUERY.search(rest)
        path = rest[1 : query.start() if query else None]
        return file_url(scheme, Path(unquote(path, errors=KEPT))) + (query[0] if query else "")
    return DRIVERS.get(scheme, scheme) + separator + rest


def file_url(scheme: str, path: Path) -> str:
    """The URL of a file, in full; what a URL would take for something else is written as one writes it there."""
    try:
        full = str(path.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a null character, links in a ring
        raise InputError(f"the storage {printable(str(path))!r} is no path: {error}") from None
    marks = (each if each.isprintable() and each not in "%?#" else quote(each, errors=KEPT) for each in full)
    return f"{scheme}:///{''.join(marks)}"  # as SQLAlchemy has it: an absolute path has four slashes


def file_of(url: str) -> Path | None:
    """The path of the file that such a URL names; None for a database elsewhere."""
    if not url.startswith(("sqlite:", "journal:")):
        return None
    return Path(unquote(url.partition(":///")[2].partition("?")[0], errors=KEPT))


@contextmanager
def opened(given: str | None, *, new: bool = True) -> Iterator[BaseStorage]:
    """The storage of that URL, closed at the end; one in memory for None.

    new: whether a file that is not there is made. Raises InputError where it cannot be reached, and RunError where it
    is lost later on.
    """
    quiet()
    if given is None:
        yield InMemoryStorage()
        return
    url = storage_url(given)
    file = file_of(url)
    if file and not new and not file.exists():
        raise InputError(f"the storage '{public(url)}' {NO_SWEEP}{_hint(url, FileNotFoundError())}")
    with _told(url):
        storage = _journal(str(file)) if url.startswith("journal:") else _database(url, file)
    try:
        with _lost(url):
            yield storage
    finally:
        storage.remove_session()
        if isinstance(storage, Database):
            storage.close()


def quiet() -> None:
    """Optuna logs every study and trial; progress and table say it here."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def _journal(path: str) -> BaseStorage:
    journal = Journal(path)
    try:
        return JournalStorage(journal)  # which reads all of it
    except DamagedError:
        raise
    except UNSOUND as error:
        raise DamagedError(NO_JOURNAL) from error


class Database(RDBStorage):
    """Optuna's, whose connections can be closed; they are where it cannot be made."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        try:
            _make_tables(url, options)
            super().__init__(url.replace("{", "{{").replace("}", "}}"), options)  # which is a template there
            if url.startswith("sqlite:"):  # it has no SELECT … FOR UPDATE
                sqlalchemy.event.listen(self.engine, "begin", _lock)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        if hasattr(self, "engine"):
            self.engine.dispose()


class Connection(sqlite3.Connection):
    """To an SQLite file, without values longer than LONGEST."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)


def _database(url: str, file: Path | None) -> BaseStorage:
    races = (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError, sqlalchemy.exc.OperationalError)
    if file:
        options: dict[str, Any] = {"connect_args": {"timeout": WAIT, "factory": Connection}}
        if "?" not in url:  # from one version to the next SQLAlchemy reads a URL's path in another way
            options["creator"] = lambda: Connection(file, WAIT, check_same_thread=False)
        if file.is_file():
            _tables_only(file)
    else:
        options = {"connect_args": {"timeout": WAIT} if "+pg8000:" in url else {}, "pool_pre_ping": True}
    for left in reversed(range(TRIES)):
        try:
            storage = Database(url, options)
            break
        except races as error:
            if not left or not re.search("already exists|unique", str(error), re.IGNORECASE):
                raise
            time.sleep(0.3)
    return storage


def _tables_only(path: Path) -> None:
    """ValueError for an SQLite file with more than tables, which are all that Optuna makes: a view can be endless."""
    with contextlib.closing(sqlite3.connect(path, timeout=WAIT)) as connection:
        for kind, name in connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger')"):
            raise ValueError(f"it has the {kind} {name}, so it is no storage of Optuna's")


def _make_tables(url: str, options: dict[str, Any]) -> None:
    """Make what is missing of them, all or nothing; where a database can only make one by one, what a kill left out.

    Optuna finds a table whose index was not made any more, and takes it as it is: without the one that keeps the names
    of studies apart every start would begin another sweep of the same name.
    """
    engine = sqlalchemy.create_engine(url, **options)
    try:
        with engine.begin() as connection:
            if url.startswith("sqlite:"):
                _lock(connection)
            BaseModel.metadata.create_all(connection)
            for table in BaseModel.metadata.tables.values():
                for index in table.indexes:
                    index.create(connection, checkfirst=True)
    finally:
        engine.dispose()


def _lock(connection: sqlalchemy.Connection) -> None:
    """Lock an SQLite file for the whole transaction: its driver would begin when the first row is written."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What is raised by a storage that cannot be opened, as one line of the user's."""
    try:
        yield
    except (ImportError, *LOST, sqlite3.Error, OSError, *UNSOUND) as error:
        told = InputError(f"the storage '{public(url)}' cannot be used: {_reason(error, url)}{_hint(url, error)}")
        raise told from _cause(error, url)


@contextmanager
def _lost(url: str) -> Iterator[None]:
    """What a storage raises that fails in mid-run."""
    try:
        yield
    except LOST as error:
        raise RunError(
            f"the storage '{public(url)}' was lost: {_reason(error, url)}; the same command goes on where it stopped"
        ) from _cause(error, url)


@contextmanager
def understood(where: str) -> Iterator[None]:
    """DataError for a storage that can be read, and holds what no sweep of this version has written."""
    try:
        yield
    except (InputError, RunError, StorageInternalError):
        raise
    except UNSOUND as error:
        raise DataError(
            f"{where} is damaged, or of another version of gpunet ({_words(error)}): choose another with --storage or "
            "--out, or delete it"
        ) from error


def _cause(error: BaseException, url: str) -> BaseException | None:
    """The error for a traceback; None where it may quote what nobody else should know."""
    return None if has_secret(url) else error


def _reason(error: BaseException, url: str) -> str:
    """The driver's own words, without SQLAlchemy's around them and without the URL's secrets."""
    return cleaned(_words(error), url)


def _words(error: BaseException) -> str:
    if isinstance(error, StorageInternalError) and error.__cause__ and not isinstance(error, DamagedError):
        error = error.__cause__
    inner = getattr(error, "orig", None) or error
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    first = inner.args[0] if inner.args else inner
    if isinstance(first, dict) and "M" in first:  # pg8000's fields of PostgreSQL's answer
        return str(first["M"])
    if isinstance(error, KeyError):
        return f"it lacks {inner}"
    return " ".join(str(inner).split()).rstrip(".") or type(inner).__name__


def _hint(url: str, error: Exception) -> str:
    if isinstance(error, ImportError) and "+pg8000" in url:
        return f"; install the driver with: {install('postgres')}"
    if isinstance(error, ImportError) and "+pymysql" in url:
        return "; install the driver with: pip install pymysql"
    file = file_of(url)
    if isinstance(error, TypeError) and not file:  # the driver's: it has no default
        return "; say who you are: postgresql://USER@host/name"
    if file and not file.parent.is_dir():
        return f"; there is no folder '{file.parent}' (after sqlite: or journal: an absolute path has four slashes)"
    return ""
