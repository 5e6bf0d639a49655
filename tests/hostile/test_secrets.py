"""What only its user should know of an address is never shown, however it is written and whoever quotes it."""

from __future__ import annotations

import io
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gpunet as gn
from gpunet.addresses import cleaned, harmless, host, public
from gpunet.cli import execute
from gpunet.datasets import fetch
from gpunet.errors import GpunetError, InputError
from gpunet.sweep import join, parse_parameter, search
from gpunet.sweep.storage import storage_url

PASSWORD = "top" + "secret"  # so that no line of this file, quoted in a traceback, has it
SECRETS = [PASSWORD + end for end in ("", " ", "%", "@", "/x", "@x")] + [
    begin + PASSWORD for begin in ("top/", "top@", "top#", "top?", "top%2F", "a:", "top\\", "top\t", "tö/", "[", "a&b=")
]
STORAGES = [
    "postgresql://me:{}@127.0.0.1:1/name", "postgres://me:{}@127.0.0.1:1/name", "postgresql://:{}@127.0.0.1:1/name?x=1",
    "mysql://me:{}@127.0.0.1:1/name", "postgresql://me@127.0.0.1:1/name?password={}", "nix://me:{}@host/name",
    "postgresql://127.0.0.1:1/name?sslmode=x&sslpassword={}", "postgresql://me:{}@127.0.0.1:port/name",
    "postgresql://me:{}", "postgresql://me:{}@", "://me:{}@host/name", "me:{}@host/name", "postgresql:me:{}@host/name",
    "mysql//me:{}@host/name", "//me:{}@host/name", "mysql/me:{}@host/name", "mysql;//me:{}@host/name",
    "~me:{}@host/name", "postgresql:/me:{}@host/name", "sqlite://me:{}@/name", "sqlite+pysqlcipher://:{}@/no/such/folder/x.db?cipher=aes",
    "sqlite:////no/such/folder/x.db?key={}", "journal://me:{}@host/name",
]  # fmt: skip
SPACE = [parse_parameter("x=0..1")]
MIRRORS = [
    "http://me:{}@127.0.0.1:1/x/", "http://{}@127.0.0.1:1/", "https://me:{}@host:port/x", "ftp://me:{}@127.0.0.1/x",
    "http://127.0.0.1:1/x/?token={}", "http://127.0.0.1:1/x?sig=1&{}", "me:{}@127.0.0.1/x", "//me:{}@127.0.0.1/x",
    "127.0.0.1/x?token={}", "http://me:{}", "http://me:{}@[::1", "https://me:{}@127.0.0.1:99999/", "http:/me:{}@host/",
]  # fmt: skip


def told(call) -> str:
    """All that a failing call shows: its streams, its error, and the traceback with all that is chained to it."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), pytest.raises(GpunetError) as caught:
        call()
    assert str(caught.value).isprintable()
    return out.getvalue() + str(caught.value) + "".join(traceback.format_exception(caught.value))


@pytest.mark.filterwarnings("ignore:Query string argument")
@pytest.mark.parametrize("form", STORAGES)
def test_no_error_of_a_storage_has_the_password(form):
    for secret in SECRETS[:: 1 if "me:{}@127.0.0.1:1" in form else 4]:
        where = {"storage": form.format(secret)}
        assert PASSWORD not in told(lambda where=where: search("tests.sweep.functions:plain", {}, SPACE, **where))
        assert PASSWORD not in told(lambda where=where: join(**where))


@pytest.mark.parametrize("form", MIRRORS)
def test_no_error_of_a_mirror_has_the_password(form, monkeypatch, tmp_path):
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path))
    for secret in SECRETS[:: 1 if "me:{}@127.0.0.1:1" in form else 4]:
        asked = {"mirrors": [form.format(secret)], "timeout": 1.0, "progress": True}
        assert PASSWORD not in told(lambda asked=asked: fetch("mnist", **asked))


WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["{}://me:{}SECRET{}@host/db", "{}://h/db?k={}SECRET{}", "{}://{}SECRET{}", "{}://h/{}#SECRET{}"]),
       st.sampled_from(["postgresql", "https", "x+y", "s3", "mongodb"]), WORD, WORD)  # fmt: skip
@example("{}://me:{}SECRET{}@host/db", "postgresql", "/", "@")
def test_whatever_cannot_be_parsed_is_not_shown(form, scheme, before, after):
    url = form.format(scheme, before, after)
    if form == "{}://{}SECRET{}" and "SECRET" in public(url):  # a plain host, path or user without password
        assert public(url).partition("***")[0] == url[: len(public(url).partition("***")[0])]
        return
    assert "SECRET" not in public(url), public(url)
    assert "SECRET" not in host(url)
    assert "SECRET" not in cleaned(f"cannot parse {url} or {url!r} at all", url)


def test_what_is_no_secret_stays():
    for plain in (
        "postgresql+pg8000://me@host:5432/db",
        "https://host/a/b.c/",
        "sqlite:////a/b:c@d.db",
        "http://[::1]:80/",
    ):
        assert public(plain) == plain
    assert public("postgresql://me:a@b@host:1/db") == "postgresql://me:***@host:1/db"
    assert public("https://token@host/x/?sig=1") == "https://***@host/x/?***"
    assert cleaned("no such host: host, for pw", "postgresql://me:pw@host/db") == "no such host: host, for ***"
    assert cleaned("Max retries exceeded with url: /a?sig=x (Caused by", "http://h/") == (
        "Max retries exceeded with url: *** (Caused by"
    )
    assert cleaned("sent to ftp://me:pw@other/x y", "http://host/") == "sent to ftp://***"


@pytest.mark.parametrize("form", [form for form in STORAGES if "me:{}@" in form])
def test_no_error_of_a_data_set_or_of_a_storage_on_the_command_line_has_the_password(
    form, capsys, tmp_path, monkeypatch
):
    from gpunet.cli import execute

    monkeypatch.chdir(tmp_path)
    given = form.format(PASSWORD)
    for words in (
        ("run", "svd-init", "--dataset"), ("sweep", "train", "-p", "hidden=2,3", "--dataset"), ("data", "path"),
        ("sweep", "join"), ("sweep", "train", "-p", "hidden=2,3", "--storage"), ("data", "fetch"), ("bench", "report"),
        ("sweep", "join", "a.db"),
    ):  # fmt: skip
        assert execute([*words, given]) == 2
        shown = capsys.readouterr()
        assert PASSWORD not in shown.out + shown.err


def test_a_path_that_is_there_is_shown(tmp_path):
    there = tmp_path / "a:b@c"
    there.mkdir()
    for path in (there, there / "new:1@x.db", tmp_path / "plain.db"):
        assert harmless(str(path)) == str(path)
    assert storage_url(str(there / "x.db")) == f"sqlite:///{there}/x.db"
    assert harmless(str(tmp_path / "12:30 new@x.db")) == str(tmp_path / "12:30 new@x.db")  # its folder is there
    assert harmless(str(there / "new" / "x.db")) == harmless("new:1@x.db") == "***"
    with pytest.raises(InputError, match=r"expected a path, and that is an address$") as error:
        gn.load(f"mysql://me:{PASSWORD}@host/model.safetensors")
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize("words", [("run", "toy", "--out"), ("sweep", "function", "a:b", "-p", "a=1,2", "--out"), ()])
def test_an_address_is_no_folder(capsys, monkeypatch, words, tmp_path):
    monkeypatch.chdir(tmp_path)
    address = f"mysql://me:{PASSWORD}@host/db"
    if not words:
        monkeypatch.setenv("GPUNET_DATA", address)
    assert execute([*words, address] if words else ["data", "list"]) == 2
    shown = capsys.readouterr()
    assert "address" in shown.err
    assert PASSWORD not in shown.out + shown.err
    assert list(tmp_path.iterdir()) == []
    assert harmless("https://me:pw@host/x.npz") == "https://***@host/x.npz"


def test_a_signature_stays_behind_the_name_of_the_file():
    from gpunet.datasets.fetching import _file_at

    assert _file_at("https://host/a/?sig=x%2F", "b.gz") == "https://host/a/b.gz?sig=x%2F"
    assert _file_at("https://me:pw@host", "b.gz") == "https://me:pw@host/b.gz"


def test_the_list_of_processes_has_no_password(monkeypatch):
    """A worker is told on its standard input where the sweep lies."""
    from gpunet.sweep import workers

    seen = []
    monkeypatch.setattr(workers.subprocess, "Popen", lambda *args, **kw: seen.append((args, kw)) or started(**kw))

    def started(**kw):
        kw = {name: value for name, value in kw.items() if name in ("stdin", "stdout")}
        return REAL([sys.executable, "-c", "input()"], **kw)

    url = storage_url(f"postgresql://me:{PASSWORD}@host/db")
    process = workers._start(url, "it", True)
    process.communicate(timeout=30)
    assert len(seen) == 1
    assert PASSWORD not in repr(seen)


REAL = subprocess.Popen


@pytest.mark.parametrize(
    "words", [("sweep", "train"), ("sweep", "join", "a.db"), ("run", "nix"), ("data", "path", "a")]
)
def test_a_word_too_many_on_the_command_line(words, capsys):
    from gpunet.cli import execute

    assert execute([*words, f"postgresql://me:{PASSWORD}@host/db"]) == 2
    assert PASSWORD not in capsys.readouterr().err


@pytest.mark.slow
def test_a_proxy_and_a_redirect(monkeypatch, tmp_path):
    """Addresses that nobody named on the command line: of the environment, and where a server sends us."""
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    schemes: list[str] = []

    class Away(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302, f"see http://me:{PASSWORD}@host")
            self.send_header("Location", f"{schemes[-1]}://me:{PASSWORD}@127.0.0.1:1/?sig={PASSWORD}")
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("GPUNET_DATA", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), Away) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}"
        for scheme in ("http", "ftp", "nix"):
            schemes.append(scheme)
            assert PASSWORD not in told(lambda: fetch("mnist", mirrors=[mirror], timeout=1.0, progress=True))
        server.shutdown()
    for proxy in ("http://me:{}@127.0.0.1:1", "http://me:{}@host:port", "nix://me:{}@host", "http://me:{}"):
        monkeypatch.setenv("http_proxy", proxy.format(PASSWORD))
        assert PASSWORD not in told(lambda: fetch("mnist", mirrors=["http://nowhere.invalid/"], timeout=1.0))
