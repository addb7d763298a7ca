"""What there is to do, decided before anything starts: names in, names out, what is done already."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

import click

from service.archive.folders import OURS, Folder, in_one_line
from service.errors import StartError
from service.settings import ImageFormat
from service.suffixes import format_of, renamed

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts"})
_TERMS = f"{OURS}/terms.json"
_LARGEST_SHARE = 256


@dataclass(frozen=True)
class Terms:
    """What decides the pixels of an archive: the same for all of it, however many runs it takes."""

    model: str
    sha256: str
    strength: float
    format: ImageFormat | None
    quality: int


@dataclass(frozen=True)
class Plan:
    """`todo` are names in `source`; a target that exists is done, as none appears half.

    `report` is a name in `dest`, for what fails: each source has its own, which no run of another removes.
    """

    source: Folder
    dest: Folder
    terms: Terms
    todo: list[str]
    done: int
    report: str


def plan_archive(source_url: str, dest_url: str, terms: Terms) -> Plan:
    """List both sides and hold `dest` to `terms`.

    Raises:
        click.UsageError: nothing to clean in the source, one folder within the other, or two names
            that would become one.
        StartError: the destination cannot be written, or was begun on other terms.
        FolderError: one of them cannot be read.
    """
    source, dest = Folder.at(source_url), Folder.at(dest_url)
    report = _report_of(source)
    names = None
    if source.is_file:
        source, name = source.parent
        names = [name]
    _refuse_nesting(source, dest, names)
    found = [name for name in names or source.names() if is_video(name) or format_of(PurePosixPath(name))]
    if not found:
        raise click.UsageError(f"{source_url} does not exist, or holds no images or videos")
    targets = _targets(found, terms.format)
    there = set(dest.names())
    _keep_to_terms(dest, terms, begun=bool(there))
    todo = [name for name, target in targets.items() if target not in there]
    # The longest work first, so that no engine begins a video when the others are about to end.
    todo.sort(key=lambda name: not is_video(name))
    return Plan(source, dest, terms, todo, len(found) - len(todo), report)


def target_of(name: str, format: ImageFormat | None) -> str:
    """The name of what a file becomes: its own, but for images of another format."""
    return name if is_video(name) else str(renamed(PurePosixPath(name), format))


def is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def shares(names: Sequence[str], engines: int, smallest: int) -> Iterator[list[str]]:
    """Cut the work into shares, large ones first: few to hand out, and none that the end waits for.

    Guided self-scheduling (Polychronopoulos and Kuck, 1987): a share is a part of what is left, though
    not of fewer than `smallest` images, which keep an engine's lanes busy. A video is a share of its own.
    """
    first = 0
    while first < len(names):
        left = len(names) - first
        size = 1 if is_video(names[first]) else min(_LARGEST_SHARE, max(smallest, left // (2 * engines)))
        yield list(names[first : first + size])
        first += size


def _report_of(source: Folder) -> str:
    return f"{OURS}/failed-{hashlib.sha256(os.fsencode(source.url)).hexdigest()[:8]}.jsonl"


def _targets(names: Sequence[str], format: ImageFormat | None) -> dict[str, str]:
    taken: dict[str, str] = {}
    for name in names:
        target = target_of(name, format)
        if target in taken:
            raise click.UsageError(f"{taken[target]} and {name} would both become {target}")
        taken[target] = name
    return {name: target for target, name in taken.items()}


def _refuse_nesting(source: Folder, dest: Folder, names: list[str] | None) -> None:
    inner, outer = f"{dest.url}/", f"{source.url}/"
    if inner == outer or (names is None and (inner.startswith(outer) or outer.startswith(inner))):
        raise click.UsageError(
            f"{source.url} and {dest.url} overlap: results would become inputs; choose another DEST"
        )


def _keep_to_terms(dest: Folder, terms: Terms, begun: bool) -> None:
    """Write the terms down, which also shows that we may write, or compare them with those before."""
    try:
        if not dest.exists(_TERMS):
            dest.write(_TERMS, json.dumps(asdict(terms), indent=2).encode())
            return
        before = json.loads(dest.read(_TERMS, 2**16))
        if not isinstance(before, dict):
            raise ValueError(f"{_TERMS} is no JSON object; restore it, or choose another DEST")
    except Exception as error:  # stores raise classes of their own
        raise StartError(f"{dest.url} cannot be used: {in_one_line(error)}") from None
    differ = [
        f"{key} {before.get(key)} (now {value})"
        for key, value in asdict(terms).items()
        if value != before.get(key)
    ]
    if begun and differ:
        raise StartError(f"{dest.url} was begun with {', '.join(differ)}; ask for the same, or another DEST")
    if differ:
        dest.write(_TERMS, json.dumps(asdict(terms), indent=2).encode())
