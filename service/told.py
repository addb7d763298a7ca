"""What clients are told of errors of the store and of loading: paths and hashes are for the log alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from model_store import InvalidNameError, ModelNotFoundError, StoreError
from service.errors import ModelBrokenError, StartError, StoreUnreadableError, UnknownModelError

log = logging.getLogger(__name__)
_MOST_LOGGED = 256  # clients choose the references
_logged: dict[str, str] = {}  # what the log has, by what was asked for, until that is had or fails otherwise


@contextmanager
def told(reference: str) -> Iterator[None]:
    """Around what asks for one model.

    Raises:
        UnknownModelError, ModelBrokenError: see `Engines`.
    """
    try:
        with _logged_once(reference):
            yield
    except (InvalidNameError, ModelNotFoundError) as error:
        raise UnknownModelError(str(error)) from None
    except (StoreError, StartError):  # a StartError is in the log already, once for all requests
        raise ModelBrokenError(f"{reference} cannot be loaded; see the service's log") from None


@contextmanager
def told_of_all() -> Iterator[None]:
    """Around what asks for all models.

    Raises:
        StoreUnreadableError: the store cannot be read.
    """
    try:
        with _logged_once("the model store"):
            yield
    except StoreError:
        raise StoreUnreadableError(
            "The models cannot be listed just now; try again, or see the service's log"
        ) from None


@contextmanager
def _logged_once(asked: str) -> Iterator[None]:
    """One line for the first of many requests, so that they do not fill the log."""
    try:
        yield
    except (InvalidNameError, ModelNotFoundError):
        raise
    except StoreError as error:
        if _logged.get(asked) != str(error):
            if len(_logged) >= _MOST_LOGGED:
                del _logged[next(iter(_logged))]
            _logged[asked] = str(error)
            log.error("%s cannot be loaded: %s", asked, error)
        raise
    else:
        _logged.pop(asked, None)
