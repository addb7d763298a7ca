"""Checkpoints that are whole or not there, whatever happens while they are written."""

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from training.errors import DataError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint and then replaces it.

    Lightning's own goes through the folder for temporary files, which may be on another disk: a
    copy from there can be cut off.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Raises DataError where it cannot be written; the file that was there before stays."""
        final = Path(path)
        draft = final.with_suffix(".part")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(final)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a failed write into the latter
            draft.unlink(missing_ok=True)
            raise DataError(
                f"{final} cannot be written ({error}); the one before it is intact: make room and run again"
            ) from None
