"""What can go wrong between a model's name and its verified bytes."""


class StoreError(Exception):
    """Base of all errors of the store."""


class InvalidNameError(StoreError):
    """Not a model name or version by the store's syntax; nothing was looked up."""


class ModelNotFoundError(StoreError):
    """The store has no such model or version."""


class CorruptModelError(StoreError):
    """The files of a version are incomplete or do not match its card."""


class ModelUnavailableError(StoreError):
    """Files cannot be read just now (permissions, memory, the disk); they may be sound, so try again."""


class VersionExistsError(StoreError):
    """A published version never changes; publish the next one instead."""
