"""What SIGTERM and Ctrl-C do to a run: it ends after its step, with a checkpoint to go on from."""

import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl


class StopAtSignals(pl.Callback):
    """Lightning would drop what was learned since the last checkpoint, and end with status 0 at SIGTERM.

    Attributes:
        received: the number of the signal, 0 for none; a second one ends the process as it is.
    """

    def __init__(self) -> None:
        self.received = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._receive)  # Lightning puts the old handlers back

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, signal.SIG_DFL)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        # All processes have to stop at one step; torchrun tells each of them by itself.
        told = trainer.strategy.broadcast(self.received)
        if told:  # else a signal that came meanwhile is for the next step
            self.received = told
            trainer.should_stop = True
