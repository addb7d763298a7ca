"""`bentoml` whose control sockets are for its own user alone.

The supervisor of BentoML's workers, circus, takes orders such as "run this command" from whoever reaches its
socket, and BentoML opens that on a TCP port, which every user of the machine reaches. Here it is a file in
a folder that nobody else can enter.
"""

import tempfile
from typing import Any

from bentoml._internal.utils import circus
from bentoml_cli.cli import cli

_CHECK_S = 10  # as BentoML has it


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="quietframe-") as folder:  # mode 0700

        def private_arbiter(watchers: list[Any], *, threaded: bool = False, **options: Any) -> circus.Arbiter:
            return (circus.ThreadedArbiter if threaded else circus.Arbiter)(
                watchers,
                endpoint=f"ipc://{folder}/control",
                pubsub_endpoint=f"ipc://{folder}/events",
                check_delay=options.pop("check_delay", _CHECK_S),
                **options,
            )

        circus.create_standalone_arbiter = private_arbiter
        cli()


if __name__ == "__main__":
    run()
