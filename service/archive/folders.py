"""A folder of files by its URL, on a disk or in an object store; files in it appear whole or not at all."""

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from fsspec import get_filesystem_class
from fsspec.implementations.local import LocalFileSystem

from service.errors import StartError

OURS = "_quietframe"  # what we keep in a folder beside its files
_ABANDONED_S = 24 * 3600  # no work leaves its drafts untouched for so long
# They show an object when it has been sent completely, and "renaming" there is a copy.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2"})


class FolderError(StartError):
    """A folder cannot be used; the text says why."""


@dataclass(frozen=True)
class Folder:
    """Files by their names relative to `url`, with `/` between the parts.

    What is written is under `drafts-{run}` in ours until it is whole: each run into a folder has its own.
    What reads and writes raises whatever the file system raises: OSError, as a rule.
    """

    url: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def at(cls, url: str) -> "Folder":
        """The folder at a path or fsspec URL, spelled so that every process and node means the same.

        Raises:
            FolderError: nothing installed here reads such a URL.
        """
        folder = cls(url.rstrip("/") or "/")
        if folder._is_local:
            return cls(f"file://{os.path.realpath(folder._root)}")
        if "memory" in folder._protocols:
            raise FolderError(f"{url} is in the memory of one process; engines are processes of their own")
        return cls(str(folder._files.unstrip_protocol(folder._root)))

    def names(self) -> list[str]:
        """All files below, in order, without our own; none where there is no such folder.

        Raises:
            FolderError: it cannot be listed.
        """
        start = len(self._root.rstrip("/")) + 1
        try:
            names = [path[start:] for path in self._files.find(self._root)]
        except FileNotFoundError:
            return []
        except Exception as error:  # stores raise classes of their own
            raise FolderError(f"{self.url} cannot be listed: {in_one_line(error)}") from None
        return sorted(name for name in names if name and not name.startswith(f"{OURS}/"))

    @property
    def is_file(self) -> bool:
        """Whether the URL is that of a single file.

        Raises:
            FolderError: that cannot be found out.
        """
        try:
            return bool(self._files.isfile(self._root))
        except Exception as error:
            raise FolderError(f"{self.url} cannot be read: {in_one_line(error)}") from None

    @property
    def parent(self) -> tuple["Folder", str]:
        """The folder that this file is in, and its name there."""
        url, _, name = self.url.rpartition("/")
        return Folder(url), name

    def exists(self, name: str) -> bool:
        return bool(self._files.isfile(self._path(name)))

    def read(self, name: str, limit: int) -> bytes:
        """The first `limit` bytes of a file."""
        content: bytes = self._files.cat_file(self._path(name), start=0, end=limit)
        return content

    def path_of(self, name: str, scratch: Path) -> Path:
        """Where the file is on this machine's disk; from elsewhere it is copied into `scratch`."""
        if self._is_local:
            return Path(self._path(name))
        copy = scratch / f"source{Path(name).suffix}"
        self._files.get_file(self._path(name), str(copy))
        return copy

    def path_on_disk(self, name: str) -> Path | None:
        """Where the file is or would be, in a folder that is made for it; None where that is no disk."""
        if not self._is_local:
            return None
        path = Path(self._path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: bytes) -> None:
        self._appear(name, lambda path: self._files.pipe_file(path, content))

    def put(self, name: str, file: Path) -> None:
        """As `write`, from a file on this machine's disk."""
        self._appear(name, lambda path: self._files.put_file(str(file), path))

    def open_text(self, name: str) -> TextIO:
        """A file to write lines to; in an object store it appears when it is closed."""
        path = self._path(name)
        self._make_room(path)
        file: TextIO = self._files.open(path, "w", encoding="utf-8", newline="\n")
        return file

    def remove(self, name: str) -> None:
        """Remove a file, or everything below a folder, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(self._path(name), recursive=True)

    def remove_drafts(self) -> None:
        """What this run has left half done, and on a disk what killed ones have."""
        self.remove(self._drafts)
        if not self._is_local:
            return
        for drafts in Path(self._path(OURS)).glob("drafts-*"):
            if time.time() - _last_change(drafts) > _ABANDONED_S:
                self.remove(f"{OURS}/{drafts.name}")

    @property
    def scratch(self) -> Path | None:
        """Where drafts are, if that is a disk; None for the system's temporary folder."""
        if not self._is_local:
            return None
        drafts = Path(self._path(self._drafts))
        drafts.mkdir(parents=True, exist_ok=True)
        return drafts

    def _appear(self, name: str, send: Callable[[str], object]) -> None:
        target = self._path(name)
        if _OBJECT_STORES & self._protocols:
            send(target)
            return
        draft = self._path(f"{self._drafts}/{uuid.uuid4().hex}")
        self._make_room(draft)
        self._make_room(target)
        try:
            send(draft)
            self._rename(draft, target)
        except BaseException:
            with contextlib.suppress(Exception):
                self._files.rm_file(draft)
            raise

    def _make_room(self, path: str) -> None:
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _rename(self, draft: str, target: str) -> None:
        if self._is_local:
            os.replace(draft, target)  # noqa: PTH105 - names here are strings, of any file system
        else:
            self._files.mv(draft, target)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @property
    def _drafts(self) -> str:
        return f"{OURS}/drafts-{self.run}"

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @property
    def _is_local(self) -> bool:
        return isinstance(self._files, LocalFileSystem)

    @property
    def _protocols(self) -> frozenset[str]:
        protocol = self._files.protocol
        return frozenset({protocol} if isinstance(protocol, str) else protocol)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """Not by fsspec's `url_to_fs`, to which `::` in a name begins another URL."""
        protocol, separator, _ = self.url.partition("://")
        try:
            system = get_filesystem_class(protocol if separator else "file")
            return system(**system._get_kwargs_from_urls(self.url)), str(system._strip_protocol(self.url))
        except (ImportError, ValueError, OSError) as error:
            raise FolderError(f"{self.url}: {in_one_line(error)}") from None


def _last_change(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def in_one_line(error: Exception) -> str:
    """What an error says, or its name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
