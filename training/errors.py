"""What can be wrong with a training run, said to the person who started it."""


class TrainingError(Exception):
    """Base of every error the training room raises on purpose; its text says what to do."""


class DataError(TrainingError):
    """The folder of images is missing, empty or unusable."""


class RecipeError(TrainingError):
    """The recipe is missing, has an unknown key or an impossible value."""


class DivergedError(TrainingError):
    """The loss is not a number any more."""


class StoppedError(TrainingError):
    """A signal ended the run before its budget did; nothing is lost."""

    def __init__(self, text: str, signal: int) -> None:
        super().__init__(text)
        self.status = 128 + signal  # as shells have it


class ParityError(TrainingError):
    """The exported graph does not compute what the network computes."""


class NotBetterError(TrainingError):
    """What was fine-tuned is not better than what it began with."""
