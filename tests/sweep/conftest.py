from __future__ import annotations

import pytest

from . import postgres


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch, tmp_path):
    """Nobody's data folder, nobody's runs/, and tables as wide as they like."""
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def poison(tmp_path):
    """Files in the current folder that are named as modules we need: whoever imports one ends."""
    for name in ("json", "random", "numpy", "optuna", "matplotlib", "sqlalchemy", "gpunet"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the current folder was imported')\n")


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server."""
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.server() as url:
        yield url


@pytest.fixture
def empty(server):
    """Empties the database."""
    import sqlalchemy

    from gpunet.sweep.storage import storage_url

    def call():
        engine = sqlalchemy.create_engine(storage_url(server), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        engine.dispose()

    return call


@pytest.fixture
def database(server, empty):
    """The URL of an empty database."""
    empty()
    return server
