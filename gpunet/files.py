"""Files that are there whole or not at all, in folders that one process writes to at a time.

What a killed process leaves behind is `.NAME.xxxxxxxx.part` at most: the next one that writes NAME removes it, told
from the temporary of a living process by the lock that this one holds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gpunet.addresses import harmless, public
from gpunet.errors import InputError, OutputError, shown
from gpunet.extras import optional
from gpunet.interrupts import contextmanager, undivided

RESULT = "result.json"  # of a folder, what the command found that wrote it
WINDOWS = os.name == "nt"  # which has no such locks, and neither renames nor removes what is open
ABANDONED = 3600.0  # seconds after which a temporary is nobody's, where the file system has no locks to tell it by
LONGEST = 200  # bytes of a file's name that its temporary has: 255 is the most


_made: set[Path] = set()  # folders that were not there before


def writable_folder(path: str | os.PathLike[str], *names: str, hint: str = " with --out") -> Path:
    """The folder, made if need be; OutputError where it cannot be made or written to, or not under these names."""
    folder = Path(path)
    try:
        if not folder.exists():
            _made.add(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with undivided(), temporary(folder / "probe") as (_, file):
            file.write(bytes(4096))  # a disk that is full takes the name, but no content
    except (OSError, ValueError) as error:
        told = reason(error)
        if folder in _made:  # for nothing
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, FileExistsError) and (found := _kind(folder)):
            told = f"it is {found}, no folder"
        raise OutputError(f"cannot write to '{harmless(str(folder))}': {told}; choose another folder{hint}") from error
    for name in names:
        check_replaceable(folder / name)
    return folder


def check_replaceable(path: Path) -> None:
    """OutputError where something else than a plain file stands: that is neither written through nor replaced."""
    try:
        found = _kind(path)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write '{path}': {reason(error)}") from error
    if found not in ("", "a file"):
        raise OutputError(
            f"cannot write '{path}': {found} stands there, which is neither followed nor replaced; "
            "remove it or choose another place"
        )


def write_atomically(path: Path, content: str | bytes | bytearray) -> None:
    """Write beside, wait for the disk, rename: whatever dies at whatever moment, the old file or the new one is whole.

    Waiting costs 4 ms, or 60 for 64 MB: without it a process may be killed at any moment, but after a power failure
    the renamed file could be an empty one, and the old one gone. Raises OutputError.
    """
    _write(path, content, os.replace)


def write_once(path: Path, content: str | bytes | bytearray) -> bool:
    """Write a file that is not there yet, whole at once; False, and nothing written, where another was first.

    However many processes write it at the same time, one of them gets True. Raises OutputError, also where the file
    system has no hard links.
    """
    try:
        _write(path, content, os.link)
    except OutputError as error:
        if isinstance(error.__cause__, FileExistsError):
            return False
        raise
    return True


def _write(path: Path, content: str | bytes | bytearray, place: Callable[[str, Path], None]) -> None:
    check_replaceable(path)
    try:
        with undivided(), temporary(path) as (name, file):
            file.write(content.encode() if isinstance(content, str) else content)
            put_in_place(name, file, path, place)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write '{path}': {reason(error, path.parent)}") from error


@contextmanager
def temporary(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """A new file beside `path` and its name, locked while it is ours; removed at the end unless it was renamed.

    First what killed processes left of such files is removed. Raises OSError.
    """
    remove_abandoned(path)
    handle, name = _created(path)
    failed: BaseException | None = None
    try:
        with os.fdopen(handle, "wb") as file:
            try:
                yield name, file
            except BaseException as error:
                failed = error
                raise
    except OSError:
        if failed is None:
            raise
        raise failed from failed.__cause__  # where a disk is full closing fails as well, which says nothing new
    finally:
        with contextlib.suppress(OSError):  # renamed, or gone with its folder
            os.unlink(name)


def settle(file: BinaryIO) -> None:
    """Wait until the disk has all that was written. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())


def put_in_place(name: str, file: BinaryIO, path: Path, place: Callable[[str, Path], None] = os.replace) -> None:
    """Give a temporary its name, once the disk has it. Raises OSError."""
    settle(file)
    if WINDOWS:  # elsewhere the lock is held till it has its name
        file.close()
    place(name, path)


def write_or_keep(path: Path, content: str | bytes | bytearray) -> Path:
    """`write_atomically` what took long to make: a folder that is gone is made again, and where it cannot be, kept.

    Returns the path. What is kept lies in a new folder, FOLDER-kept, beside the one that was meant or in the system's
    temporary folder: OutputError says where; its `kept` is that path, None where there is no room anywhere.
    """
    try:
        with contextlib.suppress(OSError):  # writing says why
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        return path
    except OutputError as error:
        kept = _keep(path, content)
        told = f"it is kept as '{kept}'" if kept else "nor could it be kept beside that or in the temporary folder"
        raise OutputError(f"{error}; {told}", kept) from error


def attempted(write: Callable[[], Path]) -> tuple[Path | None, str]:
    """Write results: where they lie (None: nowhere), and "" or why they are not where they were asked for."""
    try:
        return write(), ""
    except OutputError as error:
        return error.kept, str(error)


def remove(path: Path) -> None:
    """Remove a file, where there is one, and what killed processes left of it."""
    remove_abandoned(path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove '{path}': {reason(error)}") from error


def _keep(path: Path, content: str | bytes | bytearray) -> Path | None:
    for place in _places(path):
        with contextlib.suppress(OSError):
            folder = _new_folder(place, path.parent.name or "gpunet")
            try:
                write_atomically(folder / path.name, content)
                return folder / path.name
            except OutputError:
                folder.rmdir()
    return None


def _places(path: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):  # the current folder itself may be gone
        yield path.absolute().parent.parent
    with contextlib.suppress(OSError):
        yield Path(tempfile.gettempdir())


def _new_folder(place: Path, name: str) -> Path:
    for number in itertools.count(1):
        folder = place / f"{name}-kept{'' if number == 1 else f'-{number}'}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


@contextmanager
def alone(folder: Path, who: str = "process", hint: str = " with --out") -> Iterator[None]:
    """Hold the folder, which must exist, while the block runs; OutputError where another process holds it.

    The lock is on the folder itself: nothing is left behind, and a process that is killed holds nothing any more. Where
    the system or the file system has no locks nothing is held.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders; nor can one be read everywhere that can be written to
        yield
        return
    try:
        if _locked(handle) is False:
            raise OutputError(
                f"another {who} is writing to '{folder}': wait for it to end, or choose another folder{hint}"
            )
        yield
    except BaseException:
        if folder in _made:  # and is of no use, where nothing was written
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    finally:
        os.close(handle)


def _locked(handle: int) -> bool | None:
    """Whether we hold a file now; None where there are no locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, ImportError):  # a file system, or a system, without them
        return None
    return True


def _created(path: Path) -> tuple[int, str]:
    """Never a file that is there, or a link: and with the rights that the umask leaves it, as any other."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        name = str(path.with_name(f".{_short(path)}.{os.urandom(4).hex()}.part"))
        try:
            handle = os.open(name, flags, 0o666)
        except FileExistsError:
            continue
        if _locked(handle) is not False and os.path.exists(name):
            return handle, name
        os.close(handle)  # somebody took it for abandoned in between


def remove_abandoned(path: Path) -> None:
    """Remove the temporaries of `path` whose processes are gone."""
    ours = re.compile(rf"\.{re.escape(_short(path))}(\.[0-9a-z_]{{8}})?\.part")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for each in entries:
            if ours.fullmatch(each.name) and each.is_file(follow_symlinks=False):
                _remove_unheld(each.path)


def _remove_unheld(name: str) -> None:
    """Remove a temporary file unless a living process holds it."""
    with contextlib.suppress(OSError):
        handle = os.open(name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            free = _locked(handle)
            if free is None:
                free = time.time() - os.fstat(handle).st_mtime > ABANDONED
            if free and not WINDOWS:
                os.unlink(name)
        finally:
            os.close(handle)
        if free and WINDOWS:
            os.unlink(name)


def _short(path: Path) -> str:
    return os.fsdecode(os.fsencode(path.name)[:LONGEST])


def _kind(path: Path) -> str:
    """What stands there, in words; "" for nothing."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if stat.S_ISLNK(mode):
        return f"a symbolic link to '{os.readlink(path)}'"
    kinds = ((stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"))
    return next((name for test, name in kinds if test(mode)), "a device")


def reason(error: Exception, folder: Path | None = None) -> str:
    """Why a file cannot be read or written, in words; that its folder is missing where that is so."""
    if isinstance(error, FileNotFoundError) and folder is not None and not folder.is_dir():
        return f"there is no folder '{folder}'"
    return str(getattr(error, "strerror", None) or error)


def user_cache() -> Path:
    """The platform's cache folder for gpunet; it need not exist."""
    platformdirs = optional("platformdirs")
    if platformdirs is None:  # a plain install keeps nothing; beside a checkout, say: where Linux has the folder
        return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "gpunet"
    return Path(platformdirs.user_cache_dir("gpunet", appauthor=False))


def check_path(name: str, value: Any) -> Path:
    """A path, which need not exist; InputError for what cannot be one."""
    try:
        path = Path(value)
        if "://" in os.fspath(value) and not os.path.lexists(value):
            raise InputError(f"{name} is '{public(os.fspath(value))}': expected a path, and that is an address")
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except InputError:
        raise
    except Exception as error:  # too long for the system, of bytes, a zero within, or an object of the user's
        raise InputError(f"{name} is {shown(value)}: expected a path such as 'model.safetensors'") from error
    return path
