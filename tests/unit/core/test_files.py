"""Atomic writing: all or nothing, whatever stops it."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.core.errors import StorageError
from pellucid.core.files import (
    atomic_directory,
    atomic_file,
    recover_directory,
    sha256,
    write_text,
)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_file_is_replaced_whole_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_text(path, "first")
    write_text(path, "second")
    assert path.read_text() == "second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert leftovers(path.parent) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with (
        pytest.raises(StorageError, match=r"cannot write .*file: .*free space"),
        atomic_file(path) as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("old", "new"):
        with atomic_directory(folder) as temporary:
            (temporary / name).write_text(name)
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert leftovers(tmp_path) == []


def test_a_directory_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with atomic_directory(folder) as temporary:
        (temporary / "old").touch()
    with pytest.raises(KeyboardInterrupt), atomic_directory(folder) as temporary:
        (temporary / "new").touch()
        raise KeyboardInterrupt
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert leftovers(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from pellucid.core.files import atomic_directory
rename = Path.rename
def die_before_the_second(self, target):
    if self.name.endswith(".tmp"):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = die_before_the_second
with atomic_directory(Path(sys.argv[1])) as temporary:
    (temporary / "new").touch()
"""


def test_a_process_killed_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with atomic_directory(folder) as temporary:
        (temporary / "old").touch()
    source = Path(sys.modules["pellucid"].__file__ or "").parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)],
        env=os.environ | {"PYTHONPATH": str(source)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not folder.exists()
    recover_directory(folder)
    assert [path.name for path in folder.iterdir()] == ["old"]


def test_devices_and_files_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    device = Path(os.devnull)
    for writer in (atomic_file, atomic_directory):
        with pytest.raises(StorageError, match="choose another path"), writer(device):
            pytest.fail("a device must not be replaced")
    assert device.is_char_device()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="not a folder"), atomic_directory(tmp_path / "file"):
        pytest.fail("a file must not become a folder")


def test_the_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256(tmp_path / "empty") == expected
