"""ModelStore: a folder of published model versions, `<name>/<version>/{model.onnx, card.json, README.md}`.

A version may have its network in int8 and fp16 as well, in `int8/model.onnx` and `fp16/model.onnx`.
The layout is also a valid Triton and OpenVINO Model Server repository.
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from model_store.card import NAME_PATTERN, ModelCard, Precision
from model_store.errors import (
    CorruptModelError,
    InvalidNameError,
    ModelNotFoundError,
    ModelUnavailableError,
    StoreError,
    VersionExistsError,
)
from model_store.markdown import card_markdown

MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"
PAGE_FILE = "README.md"  # the card for people; nothing reads it, so it may be missing or old
log = logging.getLogger(__name__)
_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def model_file(precision: Precision) -> str:
    """The file of a precision in the folder of a version.

    int8 and fp16 in folders of their own: OpenVINO Model Server takes any `*.onnx` beside the card for
    the model.
    """
    return f"{precision}/{MODEL_FILE}" if precision in ("int8", "fp16") else MODEL_FILE


def default_root() -> Path:
    """The models that ship with the package."""
    return Path(__file__).parent / "models"


@dataclass(frozen=True)
class StoredModel:
    """One published version: its card and where its files are."""

    card: ModelCard
    folder: Path

    @property
    def model_file(self) -> Path:
        return self.folder / MODEL_FILE

    def read_verified(self, precision: Precision = "fp32") -> bytes:
        """The bytes of the graph in a precision that the card has, whose hash has just been checked.

        Raises:
            CorruptModelError: the file is missing or is not the one the card describes.
            ModelUnavailableError: it cannot be read just now.
        """
        path, expected = self.folder / model_file(precision), self.card.hashes[precision]
        content = _read_file(path)
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise CorruptModelError(f"{path} has sha256 {found}, its card says {expected}; publish it again")
        return content

    def update_page(self) -> bool:
        """Write README.md anew if it is not what the card gives, whole or not at all.

        Returns:
            Whether it was.

        Raises:
            StoreError: it cannot be written.
        """
        page, wanted = self.folder / PAGE_FILE, card_markdown(self.card).encode()
        try:
            if page.is_file() and page.read_bytes() == wanted:
                return False
            with tempfile.TemporaryDirectory(prefix=".draft-", dir=self.folder) as folder:
                draft = Path(folder) / PAGE_FILE
                _write_synced(draft, wanted)
                draft.replace(page)
        except OSError as error:
            raise StoreError(f"{page} cannot be written: {error.strerror}") from None
        return True


class ModelStore:
    """Reads and publishes model versions below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._passed_over: set[str] = set()

    def names(self) -> list[str]:
        """Every model with at least one version, sorted, but those whose folder cannot be read.

        Raises:
            ModelUnavailableError: that of the store cannot.
        """
        names = [entry.name for entry in _entries(self.root) if _NAME.fullmatch(entry.name)]
        return sorted(name for name in names if self._readable_versions(name))

    def versions(self, name: str) -> list[int]:
        """Published versions of a model, ascending, but those that cannot be read; empty when there is none.

        Raises:
            InvalidNameError: it is no name.
            ModelUnavailableError: the folder of the model cannot be read just now.
        """
        return sorted(int(entry.name) for entry in self._version_folders(name))

    def __iter__(self) -> Iterator[StoredModel]:
        for name in self.names():
            for version in self.versions(name):
                yield self._read(name, version)

    def readable_cards(self) -> list[ModelCard]:
        """The cards of all versions but the broken ones: one must not hide the rest.

        Raises:
            ModelUnavailableError: the folder of the store has gone, or cannot be read.
        """
        cards = []
        names = self.names()
        if not names and not self.root.is_dir():
            raise ModelUnavailableError(f"{self.root} cannot be read: there is no such folder")
        for name in names:
            for version in self._readable_versions(name):
                try:
                    cards.append(self._read(name, version).card)
                except CorruptModelError as error:
                    log.debug("%s", error)
                except ModelUnavailableError as error:
                    self._pass_over(str(error))
        return cards

    def resolve(self, reference: str) -> StoredModel:
        """Find `name` (its newest version) or `name:version`.

        Raises:
            InvalidNameError: the reference is not of that form.
            ModelNotFoundError: there is no such model or version.
            CorruptModelError: its card is missing or invalid.
            ModelUnavailableError: it cannot be read just now.
        """
        name, version = parse_reference(reference)
        published = self.versions(name)
        if not published:
            known = ", ".join(self.names()) or "none"
            raise ModelNotFoundError(f"no model {name!r} in the store; there is: {known}")
        if version is None:
            return self._read(name, published[-1])
        if version not in published:
            known = ", ".join(map(str, published))
            raise ModelNotFoundError(f"model {name!r} has no version {version}; there is: {known}")
        return self._read(name, version)

    def next_version(self, name: str) -> int:
        """One above all that is there, also above what is no whole version, or not yet."""
        entries = _entries(self.root / _checked_name(name))
        return max((int(each.name) for each in entries if _VERSION.fullmatch(each.name)), default=0) + 1

    def publish(self, card: ModelCard, model: bytes, attachments: dict[str, bytes]) -> StoredModel:
        """Add a version; it appears complete or not at all, also after a crash or a full disk.

        Args:
            card: its sha256 must be that of `model`.
            model: the ONNX file.
            attachments: further files of the folder by name, such as an attribution list, and the
                variants of the card by `model_file`.

        Raises:
            VersionExistsError: that version is already there.
            CorruptModelError: the card describes other bytes.
        """
        graphs = {MODEL_FILE: model, **attachments}
        for precision, expected in card.hashes.items():
            if hashlib.sha256(graphs.get(model_file(precision), b"")).hexdigest() != expected:
                raise CorruptModelError(
                    f"the card of {card.label} has another sha256 than its {precision} model"
                )
        final = self.root / card.name / str(card.version)
        final.parent.mkdir(parents=True, exist_ok=True)
        # Not a version by syntax, so no reader sees it; same folder, so the rename is atomic.
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=final.parent))
        try:
            page = card_markdown(card).encode()
            files = {**attachments, MODEL_FILE: model, CARD_FILE: _card_bytes(card), PAGE_FILE: page}
            for precision in card.hashes:
                (draft / model_file(precision)).parent.mkdir(exist_ok=True)
            for name, content in files.items():
                _write_synced(draft / name, content)
            draft.chmod(0o755)
            _rename_once(draft, final, card)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return StoredModel(card, final)

    def _version_folders(self, name: str) -> list[Path]:
        folder = self.root / _checked_name(name)
        return [
            entry for entry in _entries(folder) if _VERSION.fullmatch(entry.name) and self._is_whole(entry)
        ]

    def _is_whole(self, folder: Path) -> bool:
        """What somebody is still copying by hand is no version yet, nor is what is another user's alone."""
        try:
            return (folder / CARD_FILE).is_file() and (folder / MODEL_FILE).is_file()
        except OSError as error:
            self._pass_over(f"{folder} cannot be read: {error.strerror}")
            return False

    def _readable_versions(self, name: str) -> list[int]:
        """None where the folder of the model cannot be read: one must not hide the rest."""
        try:
            return self.versions(name)
        except ModelUnavailableError as error:
            self._pass_over(str(error))
            return []

    def _pass_over(self, trouble: str) -> None:
        """Say it once, as the store is read again with every poll and many a request."""
        if trouble not in self._passed_over:
            self._passed_over.add(trouble)
            log.warning("passed over: %s", trouble)

    def _read(self, name: str, version: int) -> StoredModel:
        folder = self.root / name / str(version)
        try:
            card = ModelCard.model_validate_json(_read_file(folder / CARD_FILE))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise CorruptModelError(
                f"{folder / CARD_FILE} is not a valid card: {where}: {first['msg']}"
            ) from None
        if (card.name, card.version) != (name, version):
            raise CorruptModelError(f"{folder / CARD_FILE} is the card of {card.label}, not {name}/{version}")
        return StoredModel(card, folder)


def parse_reference(reference: str) -> tuple[str, int | None]:
    """Split `name` or `name:version`.

    Raises:
        InvalidNameError: it is neither.
    """
    name, colon, version = reference.partition(":")
    if colon and not _VERSION.fullmatch(version):
        raise InvalidNameError(f"{reference!r}: the version after the colon is a positive integer")
    return _checked_name(name), int(version) if colon else None


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidNameError(
            f"{name!r} is not a model name: small letters, digits, '.', '_' and '-', first a letter or digit"
        )
    return name


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none.

    Raises:
        ModelUnavailableError: it cannot be read.
    """
    try:
        return list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ModelUnavailableError(f"{folder} cannot be read: {error.strerror}") from None


def _read_file(path: Path) -> bytes:
    """The bytes of a file that every version has.

    Raises:
        CorruptModelError: there is none.
        ModelUnavailableError: it cannot be read, which says nothing about what is in it.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CorruptModelError(f"{path} cannot be read: {error.strerror}") from None
    except OSError as error:
        raise ModelUnavailableError(f"{path} cannot be read: {error.strerror}") from None
    except MemoryError:
        raise ModelUnavailableError(f"{path} cannot be read: too little memory") from None


def _card_bytes(card: ModelCard) -> bytes:
    return (card.model_dump_json(indent=2) + "\n").encode()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename_once(draft: Path, final: Path, card: ModelCard) -> None:
    try:
        draft.rename(final)  # fails when `final` is a folder with files in it, so publishing twice cannot win
    except OSError as error:
        if final.exists():
            raise VersionExistsError(f"{card.label} is already published; versions never change") from None
        raise error
