from __future__ import annotations

import gzip
import socket

import pytest

from gpunet.datasets import data_dir, fetch, fetching, status
from gpunet.datasets.packed import damage
from gpunet.datasets.progress import Bar, Lines, Quiet
from gpunet.errors import DataError, FetchError, OutputError


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


def asked(mirror, name: str = "a-images.gz") -> list[str | None]:
    return [request.range for request in mirror.requests if request.name == name]


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
    assert asked(mirror) == [None]
    assert status("tiny").state == "verified"


def test_what_is_there_and_sound_is_not_fetched_again(tiny, serve):
    mirror = serve(tiny.packed)
    get(mirror)
    get(mirror)
    assert len(mirror.requests) == 2
    tiny.b.unlink()
    get(mirror)
    assert [request.name for request in mirror.requests[2:]] == ["b-labels.gz"]


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


def test_a_body_shorter_than_announced_is_taken_up_by_the_next_mirror(tiny, serve):
    first, second = serve(tiny.packed, break_after=100_000), serve(tiny.packed)
    get(first, second)
    (start,) = asked(second)
    assert start is not None
    kept = int(start.removeprefix("bytes=").removesuffix("-"))
    assert 98_000 <= kept <= 100_000
    assert second.requests[0].status == 206
    assert second.requests[0].sent == len(tiny.packed["a-images.gz"]) - kept
    assert status("tiny").state == "verified"


def test_interrupted_and_taken_up_again(tiny, serve):
    text = fails(serve(tiny.packed, break_after=150_000))
    assert "broke off after" in text
    assert "taken up next time" in text
    assert tiny.there() == ["a-images.gz.part"]
    kept = tiny.part.stat().st_size
    assert 148_000 <= kept <= 150_000

    mirror = serve(tiny.packed)
    get(mirror)
    assert asked(mirror) == [f"bytes={kept}-"]
    assert mirror.requests[0].sent == len(tiny.packed["a-images.gz"]) - kept
    assert tiny.there() == ["a-images.gz", "b-labels.gz"]
    assert tiny.a.read_bytes() == tiny.packed["a-images.gz"]


def test_ctrl_c_leaves_only_the_part(tiny, serve, monkeypatch):
    class Impatient(Quiet):
        def at(self, done: int) -> None:
            if done > 50_000:
                raise KeyboardInterrupt

    monkeypatch.setattr("gpunet.datasets.download._SECONDS_BETWEEN_REPORTS", 0)
    monkeypatch.setattr(fetching, "reporter", lambda _: Impatient())
    with pytest.raises(KeyboardInterrupt):
        get(serve(tiny.packed))
    assert tiny.there() == ["a-images.gz.part"]
    kept = tiny.part.stat().st_size
    assert kept > 50_000

    monkeypatch.setattr(fetching, "reporter", lambda _: Quiet())
    mirror = serve(tiny.packed)
    get(mirror)
    assert asked(mirror) == [f"bytes={kept}-"]
    assert status("tiny").state == "verified"


def test_interrupted_between_the_last_byte_and_the_rename(tiny, serve):
    tiny.folder.mkdir(parents=True)
    tiny.part.write_bytes(tiny.packed["a-images.gz"])
    mirror = serve(tiny.packed)
    get(mirror)
    assert asked(mirror) == []
    assert tiny.there() == ["a-images.gz", "b-labels.gz"]


def test_a_server_that_ignores_range(tiny, serve):
    fails(serve(tiny.packed, break_after=100_000))
    mirror = serve(tiny.packed, ranges=False)
    get(mirror)
    assert len(asked(mirror)) == 1
    assert mirror.requests[0].status == 200
    assert tiny.a.read_bytes() == tiny.packed["a-images.gz"]


def test_a_server_that_ignores_range_and_breaks_off(tiny, serve):
    fails(serve(tiny.packed, break_after=150_000))
    text = fails(serve(tiny.packed, ranges=False, break_after=100_000))
    kept = tiny.part.stat().st_size
    assert 98_000 <= kept <= 100_000
    assert f"broke off after {kept:,}" in text
    assert tiny.packed["a-images.gz"].startswith(tiny.part.read_bytes())


def test_a_part_that_does_not_fit_is_begun_again_at_the_same_mirror(tiny, serve):
    tiny.folder.mkdir(parents=True)
    tiny.part.write_bytes(b"x" * 1000)
    mirror, unused = serve(tiny.packed), serve(tiny.packed)
    get(mirror, unused)
    assert asked(mirror) == ["bytes=1000-", None]
    assert unused.requests == []
    assert tiny.a.read_bytes() == tiny.packed["a-images.gz"]


def test_a_part_that_does_not_fit_at_a_mirror_with_wrong_content(tiny, serve):
    tiny.folder.mkdir(parents=True)
    tiny.part.write_bytes(b"x" * 1000)
    wrong, good = serve({"a-images.gz": gzip.compress(b"other" * 5000, 0)}), serve(tiny.packed)
    get(wrong, good)
    assert asked(wrong) == ["bytes=1000-", None]
    assert asked(good) == [None]


def test_a_part_longer_than_the_file(tiny, serve):
    tiny.folder.mkdir(parents=True)
    tiny.part.write_bytes(b"x" * 300_000)
    mirror = serve(tiny.packed)
    get(mirror)
    assert asked(mirror) == ["bytes=300000-", None]


def test_a_server_that_sends_another_range_than_asked(tiny, serve):
    fails(serve(tiny.packed, break_after=100_000))
    mirror = serve(tiny.packed, shift=10)
    get(mirror)
    assert [bool(each) for each in asked(mirror)] == [True, False]
    assert tiny.a.read_bytes() == tiny.packed["a-images.gz"]


def test_truncated_without_an_announced_length(tiny, serve):
    first, second = serve(tiny.packed, length=False, break_after=100_000), serve(tiny.packed)
    get(first, second)
    assert asked(second) == [None]  # a part that claimed to be whole and is not is not built upon
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
    assert "more than 10 bytes" in (damage(tmp_path / "bomb", 10, "") or "")


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


def test_an_error_keeps_what_an_earlier_run_got(tiny, serve):
    fails(serve(tiny.packed, break_after=100_000))
    kept = tiny.part.stat().st_size
    fails(serve({}))
    mirror = serve(tiny.packed)
    get(mirror)
    assert asked(mirror) == [f"bytes={kept}-"]


def test_a_redirect_is_followed(tiny, serve):
    good = serve(tiny.packed)
    fails(serve(tiny.packed, break_after=100_000))
    get(serve(tiny.packed, redirect=good.url))
    assert good.requests[0].status == 206


def test_a_mirror_that_does_not_answer(tiny, serve):
    slow, good = serve(tiny.packed, stall_after=0), serve(tiny.packed)
    get(slow, good, timeout=0.3)
    tiny.a.unlink()
    assert "no answer within 0.3 s" in fails(slow, timeout=0.3)


def test_a_mirror_that_falls_asleep_is_taken_over(tiny, serve):
    slow, good = serve(tiny.packed, stall_after=50_000), serve(tiny.packed)
    get(slow, good, timeout=0.3)
    assert asked(good)[0] is not None
    assert good.requests[0].sent < 152_000


def test_a_mirror_that_drips(tiny, serve, monkeypatch):
    monkeypatch.setattr("gpunet.datasets.download._SLOWEST", 1_000_000)
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


def test_two_processes_at_once(tiny, serve):
    fcntl = pytest.importorskip("fcntl", reason="locks are POSIX")
    tiny.folder.mkdir(parents=True)
    with tiny.part.open("wb") as other:
        other.write(b"half")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match="another process"):
            get(serve(tiny.packed))
    assert tiny.part.read_bytes() == b"half"
    get(serve(tiny.packed))


def test_plain_lines_where_there_is_no_terminal(tiny, serve, capsys):
    bad, good = serve({}), serve(tiny.packed)
    fetch("tiny", mirrors=[bad.url, good.url], progress=True)
    fetch("tiny", mirrors=[good.url], progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert f"tiny/a-images.gz: {bad.host}: 404" in err
    assert "fetching tiny/a-images.gz, 0.2 MB" in err
    assert "tiny/b-labels.gz: there and verified" in err


def test_lines_come_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr("gpunet.datasets.progress._SECONDS_BETWEEN_LINES", 0)
    lines = Lines()
    lines.start("x", 2_000_000)
    lines.at(1_000_000)
    lines.stop()
    assert capsys.readouterr().err.splitlines() == ["fetching x, 2.0 MB", "  x: 1.0 MB of 2.0 MB"]


def test_a_bar_on_a_terminal(tiny, serve, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("gpunet.datasets.download._SECONDS_BETWEEN_REPORTS", 0)
    assert isinstance(fetching.reporter(True), Bar)
    fetch("tiny", mirrors=[serve(tiny.packed, break_after=99_000).url, serve(tiny.packed).url], progress=True)
    assert "tiny/a-images.gz" in capsys.readouterr().err
    assert status("tiny").state == "verified"


def test_quiet_by_default(tiny, serve, capsys):
    get(serve(tiny.packed))
    assert capsys.readouterr() == ("", "")


def test_embedded_data_needs_no_fetching():
    assert fetch("digits") == []
    assert not data_dir().exists()


def test_a_part_of_a_file_that_has_come_some_other_way_is_removed(tiny, serve):
    fails(serve(tiny.packed, break_after=150_000))
    tiny.a.write_bytes(tiny.packed["a-images.gz"])
    assert get(serve(tiny.packed)) == [tiny.a, tiny.b]
    assert tiny.there() == ["a-images.gz", "b-labels.gz"]


@pytest.mark.parametrize("name", ["a-images.gz", "a-images", "a-images.gz.part"])
def test_what_is_no_file_is_neither_followed_nor_replaced(tiny, serve, name):
    tiny.folder.mkdir(parents=True)
    precious = tiny.folder.parent / "precious"
    precious.write_bytes(b"precious")
    (tiny.folder / name).symlink_to(precious)
    with pytest.raises(OutputError, match=rf"{name}': a symbolic link to .* neither followed nor replaced"):
        get(serve(tiny.packed))
    assert (precious.read_bytes(), tiny.there()) == (b"precious", [name])


def test_the_one_before_finished_just_now(tiny, serve, monkeypatch):
    """Between our opening of its part and our lock it was renamed: it is not written to."""
    from gpunet.datasets import delivery

    tiny.folder.mkdir(parents=True)
    tiny.part.write_bytes(tiny.packed["a-images.gz"][:1000])
    real, calls = delivery._lock, []

    def late(stream, part):
        calls.append(part)
        if len(calls) == 1:
            part.rename(part.with_name("elsewhere"))
        real(stream, part)

    monkeypatch.setattr(delivery, "_lock", late)
    get(serve(tiny.packed))
    assert (tiny.folder / "elsewhere").read_bytes() == tiny.packed["a-images.gz"][:1000]
    assert tiny.there() == ["a-images.gz", "b-labels.gz", "elsewhere"]
