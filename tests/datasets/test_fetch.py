from __future__ import annotations

import gzip
import socket
import subprocess
import sys

import pytest

from gpunet import progress
from gpunet.datasets import RemoteFile, data_dir, fetch, fetching, status
from gpunet.datasets.disk import damage
from gpunet.errors import DataError, FetchError, OutputError
from tests.hostile.jobs import plain, sent


def get(*mirrors, timeout: float = 5.0):
    return fetch("tiny", mirrors=[getattr(mirror, "url", mirror) for mirror in mirrors], timeout=timeout)


def fails(*mirrors, timeout: float = 5.0) -> str:
    with pytest.raises(FetchError) as error:
        get(*mirrors, timeout=timeout)
    text = str(error.value)
    assert "\n" not in text
    for mirror in mirrors:
        assert getattr(mirror, "host", "") in text
    return text


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def test_a_good_mirror(tiny, serve):
    mirror = serve(tiny.packed)
    assert get(mirror) == [tiny.a, tiny.b]
    assert tiny.there() == ["a-images.gz", "b-labels.gz"]
    assert tiny.a.read_bytes() == tiny.packed["a-images.gz"]
    assert mirror.requests == ["a-images.gz", "b-labels.gz"]
    assert status("tiny").state == "verified"


def test_what_is_there_and_sound_is_not_fetched_again(tiny, serve):
    mirror = serve(tiny.packed)
    get(mirror)
    get(mirror)
    assert len(mirror.requests) == 2
    tiny.b.unlink()
    get(mirror)
    assert mirror.requests[2:] == ["b-labels.gz"]


def test_what_is_there_unpacked_and_sound_is_enough(tiny, serve):
    tiny.folder.mkdir(parents=True)
    for name, content in tiny.plain.items():
        (tiny.folder / name.removesuffix(".gz")).write_bytes(content)
    assert get(serve({})) == [tiny.folder / "a-images", tiny.folder / "b-labels"]


def test_a_damaged_file_is_replaced(tiny, serve):
    tiny.folder.mkdir(parents=True)
    tiny.a.write_bytes(tiny.packed["a-images.gz"][:-1])
    assert status("tiny").state == "damaged"
    get(serve(tiny.packed))
    assert status("tiny").state == "verified"


def test_a_damaged_file_stays_until_there_is_a_better_one(tiny, serve):
    tiny.folder.mkdir(parents=True)
    tiny.a.write_bytes(b"damaged")
    fails(serve({}))
    assert tiny.there() == ["a-images.gz"]
    assert tiny.a.read_bytes() == b"damaged"


def test_a_body_shorter_than_announced(tiny, serve):
    first, second = serve(tiny.packed, break_after=100_000), serve(tiny.packed)
    assert "broke off after" in fails(first)
    assert tiny.there() == []
    get(first, second)
    assert second.requests[0] == "a-images.gz"
    assert tiny.a.read_bytes() == tiny.packed["a-images.gz"]
    assert status("tiny").state == "verified"


@pytest.mark.parametrize("there", [b"", b"damaged"])
def test_ctrl_c_leaves_nothing_new(tiny, serve, monkeypatch, there):
    class Impatient(progress.Progress):
        def advance(self, parts: int = 1, note: str = "") -> None:
            assert [name for name in tiny.there() if name.startswith(".a-images.gz.")]
            raise KeyboardInterrupt

    if there:
        tiny.folder.mkdir(parents=True)
        tiny.a.write_bytes(there)
    with monkeypatch.context() as patch:
        patch.setattr(fetching, "progress_for", lambda _: Impatient())
        with pytest.raises(KeyboardInterrupt):
            get(serve(tiny.packed))
    assert tiny.there() == (["a-images.gz"] if there else [])
    assert tiny.folder.exists() == bool(there)
    get(serve(tiny.packed))
    assert status("tiny").state == "verified"


def test_what_a_kill_leaves_is_removed_by_the_next_fetch(tiny, serve):
    tiny.folder.mkdir(parents=True)
    (tiny.folder / ".a-images.gz.0123abcd.part").write_bytes(b"half")
    get(serve(tiny.packed))
    assert tiny.there() == ["a-images.gz", "b-labels.gz"]


def test_truncated_without_an_announced_length(tiny, serve):
    first, second = serve(tiny.packed, length=False, break_after=100_000), serve(tiny.packed)
    get(first, second)
    tiny.a.unlink()
    assert "truncated" in fails(first)
    assert tiny.there() == ["b-labels.gz"]


@pytest.mark.parametrize(
    "content", [b"", b"<html>sign in</html>", gzip.compress(b"other", mtime=0), b"\x1f\x8bnonsense"]
)
def test_wrong_content(tiny, serve, content):
    wrong, good = serve({"a-images.gz": content}), serve(tiny.packed)
    assert "wrong content" in fails(wrong)
    assert tiny.there() == []
    get(wrong, good)
    assert status("tiny").state == "verified"


def test_right_size_wrong_bytes(tiny, serve):
    changed = bytearray(tiny.plain["a-images.gz"])
    changed[77] ^= 1
    assert "SHA-256" in fails(serve({"a-images.gz": gzip.compress(bytes(changed), 1)}))
    assert tiny.there() == []


def test_checking_stops_where_the_content_should_end(tmp_path):
    bomb = bytearray(gzip.compress(bytes(5_000_000), 1))
    bomb[-5] ^= 1  # a wrong checksum at the end, which is only seen by unpacking everything
    (tmp_path / "bomb").write_bytes(bomb)
    assert "more than 10 bytes" in (damage(tmp_path / "bomb", RemoteFile("bomb", 10, "")) or "")


def test_a_server_that_never_stops(tiny, serve):
    assert "sends more than" in fails(serve(tiny.packed, endless=True))
    assert tiny.there() == []


def test_a_mirror_that_packs_differently(tiny, serve):
    get(serve({name: gzip.compress(content, 9) for name, content in tiny.plain.items()}))
    assert status("tiny").state == "verified"


def test_a_mirror_that_unpacks_on_the_way(tiny, serve):
    tiny.folder.mkdir(parents=True)
    tiny.a.write_bytes(b"damaged")
    assert get(serve(tiny.plain)) == [tiny.folder / "a-images", tiny.folder / "b-labels"]
    assert tiny.there() == ["a-images", "b-labels"]
    assert status("tiny").state == "verified"


@pytest.mark.parametrize("code", [403, 404, 500, 503])
def test_an_error_from_the_first_mirror(tiny, serve, code):
    bad = serve(tiny.packed, status=code)
    get(bad, serve(tiny.packed))
    tiny.a.unlink()
    assert str(code) in fails(bad)


def test_a_redirect_is_followed(tiny, serve):
    good = serve(tiny.packed)
    get(serve({}, redirect=good.url))
    assert good.requests == ["a-images.gz", "b-labels.gz"]


@pytest.mark.slow
def test_a_mirror_that_does_not_answer(tiny, serve):
    slow, good = serve(tiny.packed, stall_after=0), serve(tiny.packed)
    get(slow, good, timeout=0.3)
    tiny.a.unlink()
    assert "no answer within 0.3 s" in fails(slow, timeout=0.3)


@pytest.mark.slow
def test_a_mirror_that_falls_asleep_is_taken_over(tiny, serve):
    slow, good = serve(tiny.packed, stall_after=50_000), serve(tiny.packed)
    assert "no answer within 0.3 s, after " in fails(slow, timeout=0.3)
    get(slow, good, timeout=0.3)
    assert good.requests[0] == "a-images.gz"


@pytest.mark.slow
def test_a_mirror_that_drips(tiny, serve, monkeypatch):
    monkeypatch.setattr(fetching, "SLOWEST", 1_000_000)
    monkeypatch.setattr(fetching, "CHUNK", 256)
    slow, good = serve(tiny.packed, drip=0.0002), serve(tiny.packed)
    get(slow, good, timeout=0.3)
    assert good.requests
    tiny.a.unlink()
    assert "too slow" in fails(slow, timeout=0.3)


def test_no_server_at_all(tiny, closed_port):
    text = fails(closed_port)
    assert "connection refused" in text
    assert "--dataset digits" in text
    assert f"by hand at {tiny.a}" in text
    assert "--mirror" in text
    assert tiny.there() == []


def test_every_mirrors_answer_is_told(tiny, serve, closed_port):
    text = fails(closed_port, serve({}), serve({"a-images.gz": b"wrong"}), serve(tiny.packed, break_after=5000))
    for clause in ("connection refused", "404", "wrong content", "broke off after"):
        assert clause in text


def test_no_server_and_then_one(tiny, serve, closed_port):
    get(closed_port, serve(tiny.packed))
    assert status("tiny").state == "verified"


@pytest.mark.parametrize("mirror", ["not an address", "ftp://127.0.0.1/", "/a/path", "http://"])
def test_a_mirror_that_is_no_address(tiny, mirror):
    with pytest.raises(DataError, match="not an address"):
        get(mirror)


def test_a_password_in_the_address_is_not_told(tiny, serve):
    mirror = serve({})
    assert "secret" not in fails(mirror.url.replace("http://", "http://me:secret@"))


def test_a_folder_that_cannot_be_written(tiny, serve, tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="GPUNET_DATA"):
        get(serve(tiny.packed))


@pytest.mark.slow
def test_two_processes_at_once(tiny, serve):
    """Each has its own file, and what the other is filling is left alone."""
    code = "from tests.hostile.jobs import fetch; import sys; sys.exit(fetch(*sys.argv[1:]))"
    files, packed = plain(), sent()
    mirror = serve(packed, pause=0.02)
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tiny.folder), mirror.url], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [(each.communicate()[1].count("verified"), each.returncode) for each in started] == [(3, 0)] * 2
    found = {path.name: path.read_bytes() for path in tiny.folder.rglob("*") if path.is_file()}
    assert found == {name.rpartition("/")[2]: content for name, content in files.items()}


def test_plain_lines_where_there_is_no_terminal(tiny, serve, capsys):
    bad, good = serve({}), serve(tiny.packed)
    fetch("tiny", mirrors=[bad.url, good.url], progress=True)
    fetch("tiny", mirrors=[good.url], progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert f"tiny/a-images.gz: {bad.host}: 404" in err
    assert "fetching tiny/a-images.gz, 200 kB: 200/200\n" in err
    assert "tiny/a-images.gz: verified" in err
    assert "tiny/b-labels.gz: there and verified" in err


def test_a_bar_on_a_terminal(tiny, serve, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress.progress(True), progress.Bar)
    fetch("tiny", mirrors=[serve(tiny.packed, break_after=99_000).url, serve(tiny.packed).url], progress=True)
    assert "tiny/a-images.gz" in capsys.readouterr().err
    assert status("tiny").state == "verified"


def test_quiet_by_default(tiny, serve, capsys):
    get(serve(tiny.packed))
    assert capsys.readouterr() == ("", "")


def test_embedded_data_needs_no_fetching():
    assert fetch("digits") == []
    assert not data_dir().exists()


@pytest.mark.parametrize("name", ["a-images.gz", "a-images"])
def test_what_is_no_file_is_neither_followed_nor_replaced(tiny, serve, name):
    tiny.folder.mkdir(parents=True)
    precious = tiny.folder.parent / "precious"
    precious.write_bytes(b"precious")
    (tiny.folder / name).symlink_to(precious)
    with pytest.raises(OutputError, match=rf"{name}': a symbolic link to .* neither followed nor replaced"):
        get(serve(tiny.packed))
    assert (precious.read_bytes(), tiny.there()) == (b"precious", [name])
