"""Storages: how they are named, what cannot be reached, and that no two workers take the same trial."""

from __future__ import annotations

import gc
import itertools
import sqlite3
import threading

import pytest
import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import TrialState

from gpunet.addresses import public
from gpunet.errors import InputError, RunError, StorageLostError
from gpunet.progress import Progress
from gpunet.sweep import join, parse_parameter, search
from gpunet.sweep.plan import Spec
from gpunet.sweep.storage import opened, storage_url
from gpunet.sweep.study import SweepStudy

from .functions import BOWL, SPACE
from .tables import undisturbed, without_seconds

PLAIN = "tests.sweep.functions:plain"
ONE = [parse_parameter("x=0..1")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sqlite:///a.db", "sqlite:///{cwd}/a.db"),
        ("sqlite+pysqlite:///a.db", "sqlite:///{cwd}/a.db"),
        ("sqlite:////x/a.db", "sqlite:////x/a.db"),
        ("journal:///a.log", "journal:///{cwd}/a.log"),
        ("a.db", "sqlite:///{cwd}/a.db"),
        ("some/a.SQLite3", "sqlite:///{cwd}/some/a.SQLite3"),
        ("/x/a.journal", "journal:////x/a.journal"),
        ("a?b#c%20d.db", "sqlite:///{cwd}/a%3Fb%23c%2520d.db"),
        ("~nobody-of-that-name/a.db", "sqlite:///{cwd}/~nobody-of-that-name/a.db"),
        ("sqlite:///a%3Fb%20c#.db", "sqlite:///{cwd}/a%3Fb c%23.db"),
        ("sqlite:///q?dir/a.db", "sqlite:///{cwd}/q%3Fdir/a.db"),
        ("sqlite:///a.db?timeout=5&mode=ro", "sqlite:///{cwd}/a.db?timeout=5&mode=ro"),
        ("journal:///a%3Fb.log", "journal:///{cwd}/a%3Fb.log"),
        ("\udcff\n.log", "journal:///{cwd}/%FF%0A.log"),
        ("postgresql://me:secret@host:1/name", "postgresql+pg8000://me:secret@host:1/name"),
        ("postgres://me@host/name", "postgresql+pg8000://me@host/name"),
        ("postgresql+psycopg://me@host/name", "postgresql+psycopg://me@host/name"),
        ("mysql://me@host/name", "mysql+pymysql://me@host/name"),
    ],
)
def test_names(tmp_path, given, expected):
    url = storage_url(given)
    assert url == expected.format(cwd=tmp_path)
    assert storage_url(url) == url


@pytest.mark.parametrize("name", ["a?b#c%20d", "a{b}@c:d?x=1&y", "\udcff"])
@pytest.mark.parametrize("suffix", ["db", "log"])
def test_files_lie_where_their_names_say(tmp_path, name, suffix):
    with opened(f"{name}.{suffix}") as held:
        held.create_new_study([StudyDirection.MINIMIZE], "kept")
    assert f"{name}.{suffix}" in [path.name for path in tmp_path.iterdir()]
    with opened(storage_url(f"{name}.{suffix}")) as held:
        assert [study.study_name for study in held.get_all_studies()] == ["kept"]


def test_passwords_are_not_shown():
    assert public("postgresql+pg8000://me:se:cr@et@host:1/name") == "postgresql+pg8000://me:***@host:1/name"
    assert public("postgresql://me@host/name") == "postgresql://me@host/name"
    assert public("sqlite:////a/b:c@d.db") == "sqlite:////a/b:c@d.db"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "the storage '' is malformed: expected sqlite:///file.db"),
        ("://x", "malformed"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("journal:///", "names no file"),
        ("nix://host/name", "cannot be used: Can't load plugin: sqlalchemy.dialects:nix"),
        ("sqlite:////no/such/a.db", "unable to open database file; there is no folder '/no/such'"),
        ("journal:////no/such/a.log", "No such file or directory.*; there is no folder '/no/such'"),
        (
            "postgresql://me:secret@127.0.0.1:1/x",
            r"://me:\*\*\*@127.0.0.1:1/x' cannot be used: Can't create a connection",
        ),
        ("postgresql://127.0.0.1:1/x", "say who you are"),
        ("postgresql://me@host:port/x", "cannot be used"),
    ],
)
def test_storages_that_cannot_be_reached(given, words):
    with pytest.raises(InputError, match=words) as caught:
        search(PLAIN, {}, ONE, storage=given)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_missing_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pg8000", None)
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(InputError, match=r"pip install 'gpunet\[postgres\]'"):
        search(PLAIN, {}, ONE, storage="postgresql://me@host/x")
    with pytest.raises(InputError, match="pip install pymysql"):
        search(PLAIN, {}, ONE, storage="mysql://me@host/x")


@pytest.mark.parametrize("name", ["x.db", "x.log"])
def test_files_of_another_kind(tmp_path, name):
    (tmp_path / name).write_text("something else\nand more\n" * 100)
    with pytest.raises(InputError, match=r"not a (database|journal)"):
        search(PLAIN, {}, ONE, storage=name)
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(InputError, match="cannot be used"):
        search(PLAIN, {}, ONE, storage="folder.db")


@pytest.mark.parametrize("storage", ["a.db", "a.log"])
def test_a_storage_with_another_sweep(storage):
    table = search(PLAIN, {"a": 1}, ONE, trials=2, stages=1, storage=storage)
    with pytest.raises(InputError, match=rf"the storage '.*{storage}' holds another sweep: seed is 1 here and 0 there"):
        search(PLAIN, {"a": 1}, ONE, trials=2, stages=1, storage=storage, seed=1)
    with pytest.raises(InputError, match="settings a is 2 here and 1 there"):
        search(PLAIN, {"a": 2}, ONE, trials=2, stages=1, storage=storage)
    assert join(storage) == search(PLAIN, {"a": 1}, ONE, trials=2, stages=1, storage=storage) == table


def test_nothing_to_join():
    with pytest.raises(InputError, match=r"the storage '.*b\.db' holds no sweep"):
        join("b.db")


@pytest.mark.slow
def test_join_runs_only_what_it_is_told_to():
    search(PLAIN, {}, ONE, trials=2, stages=1, storage="a.db")
    with pytest.raises(InputError, match=r"runs 'tests\.sweep\.functions:plain': expected a function of gpunet"):
        join("a.db", only="gpunet.")


def test_a_database_that_is_lost(tmp_path):
    """Somebody empties it in mid-run."""

    def lose():
        with opened("a.db") as storage:
            study = SweepStudy.start(storage, Spec(PLAIN, {}, tuple(ONE), 2, 1, 0, "maximize"), "a.db")
            with sqlite3.connect(tmp_path / "a.db") as raw:
                raw.execute("DROP TABLE trials")
            raw.close()
            study.look()

    with pytest.raises(RunError, match=r"was lost: .*; the same command goes on"):
        lose()


@pytest.mark.slow
def test_a_kill_while_the_tables_are_made(tmp_path, monkeypatch):
    """After any statement of it: the next one finds all tables and indexes, or none."""
    killed, done = 0, False
    while not done:
        statements = itertools.count()

        def die(connection, cursor, statement, *_, after=killed, statements=statements):
            if next(statements) == after:
                raise KeyboardInterrupt

        path = tmp_path / f"{killed}.db"
        sqlalchemy.event.listen(sqlalchemy.engine.Engine, "after_cursor_execute", die)
        try:
            with opened(str(path)):
                done = True
        except KeyboardInterrupt:
            killed += 5
        finally:
            sqlalchemy.event.remove(sqlalchemy.engine.Engine, "after_cursor_execute", die)
        gc.collect()  # connections of the one that died
        for _ in range(2):
            with opened(str(path)) as storage:
                SweepStudy.start(storage, Spec(PLAIN, {}, tuple(ONE), 2, 1, 0, "maximize"), "it")
        with sqlite3.connect(path) as raw:
            assert raw.execute("SELECT COUNT(*) FROM studies").fetchone() == (1,)
        raw.close()
    assert killed > 30


def test_indexes_that_a_kill_left_out_are_made(tmp_path):
    with opened("a.db"):
        pass
    with sqlite3.connect(tmp_path / "a.db") as raw:
        raw.execute("DROP INDEX ix_studies_study_name")
    raw.close()
    for _ in range(2):
        with opened("a.db") as storage:
            study = SweepStudy.start(storage, Spec(PLAIN, {}, tuple(ONE), 2, 1, 0, "maximize"), "it")
    assert len(study.storage.get_all_studies()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("storage", ["a.db", "a.log"])
def test_a_storage_that_is_deleted_meanwhile(tmp_path, storage, workers):
    """What was finished until then is not."""

    class Vandal(Progress):
        def advance(self, parts=1, note=""):
            (tmp_path / storage).unlink(missing_ok=True)

    with pytest.raises(StorageLostError, match=rf"{storage}' is gone, with [1-9] finished trials; .* anew") as error:
        search(BOWL, {"sleep": 0.3}, SPACE, trials=6, stages=1, storage=storage, workers=workers, progress=Vandal())
    table = error.value.table
    found = without_seconds(table)
    assert found == [row for row in undisturbed(6, 1) if row["number"] in {row["number"] for row in found}]
    assert table.best["value"] == max(row["value"] for row in table if row["value"] is not None)


@pytest.mark.slow
def test_a_database_on_a_disk_that_fills_up(tmp_path, monkeypatch):
    """What is finished stays, no trial counts as failed for it, and the same command goes on."""
    resource = pytest.importorskip("resource", reason="limits are POSIX")
    monkeypatch.setattr("gpunet.sweep.study.SILENCE", 0.1)  # of what this process left running, which is alive

    def go():
        return without_seconds(search(BOWL, {}, SPACE, trials=12, stages=1, storage="a.db"))

    with opened("a.db") as storage:
        SweepStudy.start(storage, Spec(BOWL, {}, tuple(SPACE), 12, 1, 0, "maximize"), "a.db")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "a.db").stat().st_size + 4_096, limits[1]))
    try:
        with pytest.raises(RunError, match=r"a\.db' was lost: .*(full|I/O).*; the same command goes on") as error:
            go()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert go() == undisturbed(12, 1)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["a.db", "a.log"])
def test_the_same_table_from_files(storage):
    assert without_seconds(search(BOWL, {}, SPACE, trials=6, stages=2, storage=storage)) == undisturbed(6, 2)


def scramble(url, workers, trials):
    """How often each of some trials was begun, by workers that all come at once."""
    spec = Spec(PLAIN, {}, tuple(ONE), trials, 1, 0, "maximize")
    with opened(url) as storage:
        SweepStudy.start(storage, spec, url)
    taken, together, errors = [], threading.Barrier(workers), []

    def take_all():
        try:
            with opened(url) as storage:
                study = SweepStudy.join(storage, url)
                look = study.look()
                together.wait(timeout=30)
                while look.missing:
                    if trial := study.ask(look):
                        taken.append(trial.user_attrs["number"])
                    look = study.look()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=take_all) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return sorted(taken)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["a.db", "a.log"])
def test_no_two_workers_take_the_same_trial(storage):
    assert scramble(storage, 4, 6) == list(range(6))


@pytest.mark.slow
def test_sqlite_lets_nobody_in_between_reading_and_writing(tmp_path):
    """One has read that the trial runs, and is about to write its result, when another writes one, too."""
    url, came = storage_url("a.db"), threading.Event()
    with opened(url) as one, opened(url) as other:
        first = SweepStudy.start(one, Spec(PLAIN, {}, tuple(ONE), 1, 1, 0, "maximize"), url)
        trial = first.ask(first.look())

        def tell():
            SweepStudy.join(other, url).tell(trial, TrialState.PRUNED, outcome={"metrics": {"late": 1.0}})
            other.remove_session()

        thread = threading.Thread(target=tell)

        def come(connection, cursor, statement, *_):
            if statement.startswith("UPDATE trials SET state") and not came.is_set():
                came.set()
                thread.start()
                thread.join(timeout=0.5)

        sqlalchemy.event.listen(one.engine, "before_cursor_execute", come)
        first.tell(trial, TrialState.COMPLETE, 1.0)
        thread.join()
        assert came.is_set()
        assert [(row["value"], row["metrics"]) for row in first.look()] == [(1.0, {})]


@pytest.mark.slow
def test_no_two_workers_take_the_same_trial_on_postgresql(database):
    assert scramble(database, 4, 6) == list(range(6))


@pytest.mark.slow
def test_two_that_make_the_tables_at_the_same_time(database):
    together, errors = threading.Barrier(3), []

    def first():
        together.wait(timeout=30)
        try:
            with opened(database) as storage:
                SweepStudy.start(storage, Spec(PLAIN, {}, tuple(ONE), 2, 1, 0, "maximize"), "here")
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=first) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_postgresql_refuses_by_name(database):
    with pytest.raises(InputError, match="password authentication failed") as caught:
        search(PLAIN, {}, ONE, storage=database.replace("sweeper:", "sweeper:x"))
    assert database.split(":")[2].split("@")[0] not in str(caught.value)
    with pytest.raises(InputError, match='database "nix" does not exist'):
        search(PLAIN, {}, ONE, storage=database.replace("/sweeps", "/nix"))
