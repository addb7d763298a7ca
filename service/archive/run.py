"""An archive from the first name to the last line: rounds of work, a bar, a report of what failed."""

import contextlib
import json
import time
from collections.abc import Iterable
from typing import TextIO

import onnxruntime as ort
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model_store import CUDA
from service.archive.alone import alone
from service.archive.cleaner import Told, Work
from service.archive.cluster import Pool, choose_pool, clean_shares, nodes, ray_cluster
from service.archive.folders import in_one_line
from service.archive.plan import Plan, is_video, shares, target_of
from service.errors import StartError
from service.settings import Settings

_ROUNDS = 3
_DIED = f"its engine died in each of {_ROUNDS} rounds: out of memory, or a file that crashes a decoder"


def run_archive(
    plan: Plan, settings: Settings, address: str | None, engines: int | None, cores: int | None
) -> int:
    """Clean what `plan` says, here or on the Ray cluster at `address`, and tell of it.

    A share of work whose engine or machine dies is not lost: what it did not do is tried again, one
    file at a time, so that a file that kills engines is found and reported.

    Returns:
        The exit status: 0 all is there, 1 some failed, 130 interrupted.

    Raises:
        StartError: no engine can work as it was asked to, or another run does the same.
    """
    with alone(plan):
        plan.dest.remove(plan.report)
        run = _Run(plan, Console(stderr=True))
        try:
            if plan.todo:
                _check_here(plan, settings, address)
                with ray_cluster(address, settings.threads_per_worker), run.bar:
                    gpu = _takes_gpu(settings)
                    pool = choose_pool(nodes(), gpu, engines, cores)
                    run.all(_work(plan, settings, pool, gpu), pool)
        except KeyboardInterrupt:
            run.interrupted = True
        finally:
            run.close()
    return run.status()


class _Run:
    """What is still to be told of, and what has been."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._left = dict.fromkeys(plan.todo)
        self._failed = 0
        self._frames = 0
        self._report: TextIO | None = None
        self._started = 0.0  # when the first share began; engines load before
        self._last = 0.0
        self.interrupted = False
        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.2f} images/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self.bar.add_task("archive", total=len(plan.todo), rate=0.0)

    def all(self, work: Work, pool: Pool) -> None:
        """Every name is told of when this returns."""
        for number in range(_ROUNDS):
            names = list(self._left)
            if not names:
                return
            again = number > 0
            smallest = 1 if again else 2 * pool.cores
            cut = ([name] for name in names) if again else shares(names, pool.engines, smallest)
            self._round(work, pool, cut, again)
        for name in list(self._left):
            self._end(name, _DIED)

    def _round(self, work: Work, pool: Pool, cut: Iterable[list[str]], again: bool) -> None:
        before = len(self._left)
        try:
            for told in clean_shares(work, pool, cut, again):
                self._hear(told)
        except StartError:
            raise
        except Exception as error:  # of many classes; what was not told of is for the next round
            if len(self._left) == before:
                raise StartError(f"no engine gets anywhere: {in_one_line(error)[:300]}") from None

    def _hear(self, told: Told) -> None:
        if told.trouble:
            raise StartError(told.trouble)
        self._last = time.monotonic()
        self._started = self._started or self._last - told.seconds
        self._frames += told.frames
        for name, error in told.errors.items():
            if name in self._left:
                self._end(name, error)
        self.bar.update(self._task, rate=self._rate)

    def _end(self, name: str, error: str) -> None:
        del self._left[name]
        self.bar.advance(self._task)
        if not error:
            return
        self._failed += 1
        self._console.print(f"failed: {name}: {error}", markup=False, soft_wrap=True)
        self._report = self._report or self._plan.dest.open_text(self._plan.report)
        target = target_of(name, self._plan.terms.format)
        line = {"source": name, "target": target, "error": error}
        self._report.write(json.dumps(line) + "\n")
        self._report.flush()

    @property
    def _rate(self) -> float:
        return self._frames / max(self._last - self._started, 1e-9)

    def close(self) -> None:
        """Finish the report, and remove what killed engines have left half done."""
        if self._report:
            self._report.close()
        with contextlib.suppress(Exception):  # of stores: what is left there harms nobody
            self._plan.dest.remove_drafts()

    def status(self) -> int:
        """Print the last lines; the exit status."""
        plan = self._plan
        clean = len(plan.todo) - len(self._left) - self._failed
        before = f", {plan.done} before" if plan.done else ""
        rate = f", {self._rate:.2f} images/s" if self._frames else ""
        self._console.print(f"{clean} of {len(plan.todo)} cleaned{before}{rate}", markup=False)
        if self._failed:
            self._console.print(
                f"{self._failed} failed: {plan.dest.url}/{plan.report}", markup=False, soft_wrap=True
            )
        if self.interrupted:
            self._console.print("interrupted; the same command goes on from here")
            return 130
        return 1 if self._failed else 0


def _check_here(plan: Plan, settings: Settings, address: str | None) -> None:
    """What this machine lacks is said before Ray starts; a cluster may have its GPUs elsewhere."""
    if any(is_video(name) for name in plan.todo[:1]):  # videos come first
        try:
            import av  # noqa: F401
        except ModuleNotFoundError:
            raise StartError("videos need PyAV: pip install 'quietframe[video]'") from None
    if settings.device == "cuda" and not address and not _has_cuda():
        raise StartError("device=cuda, but this ONNX Runtime has no CUDA; install quietframe[gpu]")


def _takes_gpu(settings: Settings) -> bool:
    if settings.device != "auto":
        return settings.device == "cuda"
    return _has_cuda() and any(gpus for _, gpus in nodes())


def _has_cuda() -> bool:
    return CUDA in ort.get_available_providers()


def _work(plan: Plan, settings: Settings, pool: Pool, gpu: bool) -> Work:
    device = settings.device if gpu else "cpu"
    change = {
        "default_model": plan.terms.model,
        "gray_model": None,
        "workers": 1,
        "threads": pool.cores,
        "device": device,
    }
    secrets: dict[str, object] = {"tokens": frozenset(), "tls_cert": None, "tls_key": None}
    theirs = settings.model_copy(update=change | secrets)
    return Work(plan.source.url, plan.dest.url, plan.dest.run, plan.terms, theirs)
