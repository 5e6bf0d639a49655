"""Data sets that come in one archive: downloaded and checked, the wanted files taken out of it, nothing else."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gpunet.cli.data import app
from gpunet.datasets import REGISTRY, Entry, RemoteFile, entry, fetch, status
from gpunet.datasets.disk import require_sound
from gpunet.errors import FetchError, OutputError, RunError

PLAIN = {f"inside/{name}.bin": np.random.Generator(np.random.Philox(seed)).bytes(60_000 + seed)
         for seed, name in enumerate(("one", "two", "test"))}  # fmt: skip


Member = bytes | str | None


def tar(members: dict[str, Member] | list[tuple[str, Member]], prefix: str = "") -> bytes:
    """A .tar.gz: text makes a symbolic link, None a folder."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(prefix + name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type = tarfile.SYMTYPE if content else tarfile.DIRTYPE
                info.linkname = content or ""
                archive.addfile(info)
    return made.getvalue()


class Boxed:
    """A registered data set whose files come in an archive of this content, and the folder where they will lie."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch, self.folder = monkeypatch, folder
        self.archive = folder / "boxed.tar.gz"
        self.register(tar({"inside": None, **PLAIN, "inside/readme.html": b"hello"}))

    def register(self, content: bytes, **checksums: str) -> None:
        self.content = content
        self.sent = {"boxed.tar.gz": content}
        files = tuple(RemoteFile(path, len(plain), checksums.get(path)) for path, plain in PLAIN.items())
        archive = RemoteFile("boxed.tar.gz", len(content), hashlib.sha256(content).hexdigest())
        self.monkeypatch.setitem(REGISTRY, "boxed", Entry("boxed", "for tests", files, archive=archive))

    def there(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def boxed(monkeypatch, tmp_path) -> Boxed:
    return Boxed(monkeypatch, tmp_path / "data" / "boxed")


def get(*mirrors) -> list[Path]:
    return fetch("boxed", mirrors=[mirror.url for mirror in mirrors], timeout=5.0)


def fails(*mirrors, error: type[Exception] = FetchError) -> str:
    with pytest.raises(error) as caught:
        get(*mirrors)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_wanted_files_and_no_others(boxed, serve):
    mirror = serve(boxed.sent)
    assert get(mirror) == [boxed.folder / path for path in PLAIN]
    assert boxed.there() == sorted(PLAIN)
    for path, content in PLAIN.items():
        assert (boxed.folder / path).read_bytes() == content
    get(mirror)
    assert len(mirror.requests) == 1


def test_the_state_says_that_only_sizes_are_known(boxed, serve):
    assert status("boxed").state == "missing"
    get(serve(boxed.sent))
    found = status("boxed")
    assert found.state == "present"
    assert {(file.state, file.detail) for file in found.files} == {("present", "size right; no checksum known")}
    require_sound([found], named=True)
    assert {(file.state, file.detail) for file in status("boxed", check=False).files} == {("present", None)}
    (boxed.folder / "inside" / "one.bin").write_bytes(b"short")
    found = status("boxed")
    assert (found.state, found.files[0].detail) == ("damaged", "has 5 bytes, expected 60,000")
    with pytest.raises(RunError, match="gpunet data fetch boxed"):
        require_sound([found], named=True)


def test_of_files_with_and_without_checksums_none_is_verified_that_is_not(boxed, serve):
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in PLAIN.items()}
    (path, digest), *_ = sums.items()
    boxed.register(boxed.content, **{path: digest})
    get(serve(boxed.sent))
    assert [file.state for file in status("boxed").files] == ["verified", "present", "present"]
    assert status("boxed").state == "present"
    boxed.register(boxed.content, **sums)
    assert status("boxed").state == "verified"
    (boxed.folder / path).unlink()
    assert status("boxed").state == "incomplete"


def test_what_is_there_with_the_right_size_is_left_alone(boxed, serve, capsys):
    for path, content in PLAIN.items():
        (boxed.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (boxed.folder / path).write_bytes(bytes(len(content)))
    mirror = serve(boxed.sent)
    fetch("boxed", mirrors=[mirror.url], progress=True)
    assert mirror.requests == []
    assert "boxed/inside/two.bin: there, size right; no checksum known" in capsys.readouterr().err


def test_an_incomplete_set_is_replaced_whole(boxed, serve):
    """A file of unknown origin and files of the archive would be a set that nobody published."""
    for path in ("inside/one.bin", "inside/two.bin"):
        (boxed.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (boxed.folder / path).write_bytes(bytes(len(PLAIN[path])))
    get(serve(boxed.sent))
    for path, content in PLAIN.items():
        assert (boxed.folder / path).read_bytes() == content


def test_interrupted(boxed, serve):
    assert "broke off after" in fails(serve(boxed.sent, break_after=100_000))
    assert not boxed.folder.exists()
    get(serve(boxed.sent, break_after=100_000), serve(boxed.sent))
    assert boxed.there() == sorted(PLAIN)


def test_an_archive_placed_by_hand_is_used_and_left_there(boxed, serve, capsys):
    assert f"by hand at {boxed.archive}" in fails(serve({}))
    boxed.folder.mkdir(parents=True)
    boxed.archive.write_bytes(boxed.content)
    mirror = serve(boxed.sent)
    get(mirror)
    assert mirror.requests == []
    assert boxed.there() == sorted(["boxed.tar.gz", *PLAIN])

    (boxed.folder / "inside" / "one.bin").unlink()
    boxed.archive.write_bytes(boxed.content[:-1])
    fetch("boxed", mirrors=[mirror.url], progress=True)
    assert "placed by hand is not used: has" in capsys.readouterr().err
    assert len(mirror.requests) == 1
    assert (boxed.folder / "inside" / "one.bin").is_file()


def test_wrong_content_and_the_next_mirror(boxed, serve):
    other = tar({path: bytes(len(content)) for path, content in PLAIN.items()})
    changed = bytearray(boxed.content)
    changed[50_000] ^= 1
    for content, words in ((other, "bytes, expected"), (bytes(changed), "SHA-256"), (b"<html>", "has 6 bytes")):
        text = fails(serve({"boxed.tar.gz": content}))
        assert "wrong content" in text
        assert words in text
        assert not boxed.folder.exists()
    assert "sends more than" in fails(serve({"boxed.tar.gz": boxed.content + b"x"}))
    get(serve({}), serve({"boxed.tar.gz": bytes(changed)}), serve(boxed.sent))
    assert boxed.there() == sorted(PLAIN)


def test_the_same_content_in_another_packing_is_another_archive(boxed, serve):
    import gzip

    assert "wrong content" in fails(serve({"boxed.tar.gz": gzip.compress(gzip.decompress(boxed.content), 9)}))


@pytest.mark.parametrize("prefix", ["", "./"])
def test_names_with_a_dot_in_front(boxed, serve, prefix):
    boxed.register(tar(PLAIN, prefix))
    get(serve(boxed.sent))
    assert boxed.there() == sorted(PLAIN)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"inside/test.bin": "/etc/passwd"}, "inside/test.bin is not a file of 60,002 bytes"),
        ({"inside/test.bin": "../../../outside"}, "inside/test.bin is not a file of"),
        ({"inside/test.bin": None}, "inside/test.bin is not a file of"),
        ({"inside/test.bin": b"short"}, "inside/test.bin is not a file of"),
        ({"inside/test.bin": bytes(70_000)}, "inside/test.bin is not a file of"),
        ({"/inside/test.bin": PLAIN["inside/test.bin"]}, "inside/test.bin missing"),
        ({"../inside/test.bin": PLAIN["inside/test.bin"]}, "inside/test.bin missing"),
        ({}, "inside/test.bin missing"),
    ],
)
def test_archives_that_are_not_as_they_should_be(boxed, serve, members, words):
    """Their checksum is right: so would be that of an archive that somebody registered without looking into it."""
    sound = {path: content for path, content in PLAIN.items() if path != "inside/test.bin"}
    boxed.register(tar({**sound, **members}))
    text = fails(serve(boxed.sent))
    assert words in text
    assert "fetch again" in text
    assert not boxed.folder.exists(), "no file is in place before all of them are"


def test_nothing_is_written_outside_the_folder(boxed, serve, tmp_path):
    outside = tmp_path / "outside.bin"
    boxed.register(
        tar({"../../outside.bin": b"x", str(outside): b"x", "inside": "../..", **PLAIN, "inside/../../up.bin": b"x"})
    )
    get(serve(boxed.sent))
    assert boxed.there() == sorted(PLAIN)
    assert not (boxed.folder / "inside").is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["one.bin", "test.bin", "two.bin"]


def test_of_two_members_of_one_name_the_first_counts(boxed, serve):
    (first, content), *others = PLAIN.items()
    boxed.register(tar([(first, content), (first, bytes(len(content))), *others]))
    get(serve(boxed.sent))
    assert (boxed.folder / first).read_bytes() == content


@pytest.mark.parametrize("spoil", [lambda c: c[:9000], lambda c: b"\x1f\x8b" + c[2:5000][::-1], lambda c: b"no gzip"])
def test_archives_that_cannot_be_unpacked(boxed, serve, spoil):
    boxed.register(spoil(boxed.content))
    text = fails(serve(boxed.sent))
    assert "cannot be unpacked" in text or "missing" in text
    assert not boxed.folder.exists()


def test_a_member_with_a_wrong_checksum(boxed, serve):
    boxed.register(boxed.content, **{"inside/two.bin": "0" * 64})
    assert "inside/two.bin: SHA-256 is" in fails(serve(boxed.sent))
    assert not boxed.folder.exists()


def test_a_folder_that_cannot_be_written(boxed, serve):
    boxed.folder.parent.mkdir(parents=True)
    boxed.folder.write_text("a file where the folder should be")
    assert "GPUNET_DATA" in fails(serve(boxed.sent), error=OutputError)
    boxed.folder.unlink()
    boxed.folder.mkdir()
    (boxed.folder / "inside").write_text("a file where a folder should be")
    assert "cannot write" in fails(serve(boxed.sent), error=OutputError)


def test_the_command_says_what_is_known(boxed, serve):
    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, list(arguments)).stdout

    done = run("fetch", "boxed", "--mirror", serve(boxed.sent).url)
    assert f"boxed: complete (no checksums of its files are known) in {boxed.folder}" in done
    assert run("verify", "boxed").count("size right; no checksum known") == 3
    (row,) = [line for line in run("list").splitlines() if line.startswith("boxed ")]
    assert row.split()[1] == "present"


@pytest.mark.parametrize(("name", "archive"), [("cifar10", "cifar-10-binary"), ("cifar100", "cifar-100-binary")])
def test_the_registered_archives(name, archive):
    found = entry(name)
    assert found.archive is not None
    assert found.archive.name == f"{archive}.tar.gz"
    assert "https://www.cs.toronto.edu/~kriz/" in found.mirrors
    record = 3073 if name == "cifar10" else 3074
    images = dict.fromkeys(("train", "test"), 0)
    for file in found.files:
        images["test" if "test" in file.name else "train"] += file.size // record
        assert file.size % record == 0
    assert images == {"train": 50_000, "test": 10_000}
    assert {file.sha256 for file in found.files} == {None}


def test_what_a_kill_leaves_is_removed_by_the_next_fetch(boxed, serve):
    """While downloading and while unpacking."""
    (boxed.folder / "inside").mkdir(parents=True)
    (boxed.folder / ".boxed.tar.gz.00112233.part").write_bytes(boxed.content[:999])
    for name in (".one.bin.0123abcd.part", ".two.bin.abcd0123.part"):
        (boxed.folder / "inside" / name).write_bytes(b"half")
    (boxed.folder / "inside" / "mine.part").write_bytes(b"mine")
    get(serve(boxed.sent))
    assert boxed.there() == sorted([*PLAIN, "inside/mine.part"])
    (boxed.folder / ".boxed.tar.gz.00112233.part").write_bytes(boxed.content)
    get(serve({}))
    assert boxed.there() == sorted([*PLAIN, "inside/mine.part"])


def test_what_another_process_fills_is_left_alone(boxed, serve):
    fcntl = pytest.importorskip("fcntl", reason="locks are POSIX")
    boxed.folder.mkdir(parents=True)
    part = boxed.folder / ".boxed.tar.gz.00112233.part"
    with part.open("wb") as other:
        other.write(b"half")
        fcntl.flock(other, fcntl.LOCK_EX)
        get(serve(boxed.sent))
        assert part.exists()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_neither_followed_nor_replaced(boxed, serve, kind):
    (boxed.folder / "inside").mkdir(parents=True)
    path, target = boxed.folder / "inside" / "one.bin", boxed.folder.parent / "precious"
    target.write_bytes(b"precious")
    path.symlink_to(target) if kind == "link" else os.mkfifo(path)
    assert "neither followed nor replaced" in fails(serve(boxed.sent), error=OutputError)
    assert (path.is_symlink(), target.read_bytes()) == (kind == "link", b"precious")
    path.unlink()
    get(serve(boxed.sent))
    assert boxed.there() == sorted(PLAIN)
