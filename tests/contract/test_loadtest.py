"""The load test tells the truth: what k6 saw is what the service counted, and the arithmetic is right."""

import dataclasses
import math
import re
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.loadtest.__main__ import main
from deploy.loadtest.compare import Seen, Side, comparison_tables
from deploy.loadtest.figures import STAGES, Step, histogram, percentile, ratio, stage_means
from deploy.loadtest.generator import PROTOCOLS, Answer, Generator, Outcome, Protocol, stages_of
from deploy.loadtest.peers.__main__ import main as peers
from deploy.loadtest.pictures import make_pictures
from deploy.loadtest.report import Measured, write_report
from deploy.loadtest.schedule import make_schedule
from deploy.loadtest.target import Target, running_service
from deploy.loadtest.watch import Watch, Watched
from tests.conftest import Server

TICK_MS = 2.0  # k6 reads its clock in whole milliseconds, at the begin and the end


@pytest.fixture(scope="module")
def target(server: Server) -> Target:
    found = running_service(server.url, server.grpc, "frames-fast", allow_remote=False)
    return dataclasses.replace(found, pid=server.process.pid)


@pytest.fixture(scope="module")
def steps(target: Target, tmp_path_factory: pytest.TempPathFactory) -> dict[Protocol, Step]:
    """A tiny open loop by each protocol, against a real server."""
    folder = tmp_path_factory.mktemp("loadtest")
    generator = Generator(make_pictures("thumbnails", folder), folder, p99_ms=60_000)
    schedule = make_schedule(rate=20, seconds=1, deck=generator.deck, seed=0)

    def step(protocol: Protocol) -> Step:
        with Watch(target) as watched:
            outcome = generator.open(target, protocol, schedule, saturating=True)
        return Step("50 %", protocol, outcome, watched, 1, share=0.5)

    return {protocol: step(protocol) for protocol in PROTOCOLS}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_generator_and_the_service_agree(protocol: Protocol, steps: dict[Protocol, Step]) -> None:
    step = steps[protocol]
    sent = 20 - step.unsent  # k6 drops some where the machine is too busy even for k6
    assert step.server_ok == len(step.ok) == len(step.outcome.answers) == sent > 10
    assert {answer.index for answer in step.ok} == set(range(sent))
    assert {answer.picture for answer in step.ok} == {0, 1, 2, 3}
    most = sum(float(size) * runs for size, runs in step.batches.items() if runs)
    assert sum(step.batches.values()) <= sent <= most
    assert set(step.stage_mean_ms) == set(STAGES)
    assert step.outcome.cpu_s > 0
    assert step.cores is not None
    assert step.cores > 0
    assert "failed rate==0" not in step.outcome.crossed


def test_both_protocols_ask_for_the_model_given(steps: dict[Protocol, Step]) -> None:
    for step in steps.values():
        before, after = step.watched.before, step.watched.after
        grown = {key for key in after if after[key] > before.get(key, 0)}
        models = {
            dict(labels)["model"].split("/")[0]
            for name, labels in grown
            if name == "quietframe_stage_seconds_count"
        }
        assert models == {"frames-fast"}


def test_latency_counts_from_the_schedule_and_holds_the_stages(steps: dict[Protocol, Step]) -> None:
    for answer in steps["http"].ok:
        assert answer.begun >= answer.due - TICK_MS
        assert answer.latency_ms == answer.ended - answer.due
        assert set(answer.stages) == set(STAGES)
        assert 0 < sum(answer.stages.values()) <= answer.ended - answer.begun + TICK_MS


def test_the_report_and_the_comparison_show_what_was_seen(
    steps: dict[Protocol, Step], target: Target, tmp_path: Path
) -> None:
    http, grpc = steps["http"], steps["grpc"]
    measured = Measured("tiny", [("cores", "2")], [http], [http, grpc], http, [("thumbnails", http)])
    report = write_report(measured, tmp_path).read_text("utf-8")
    assert f"| http | 50 % | 20.00 | {http.goodput:.2f} |" in report
    for plot in re.findall(r"\((.*\.png)\)", report):
        assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")
    seen = Seen([http, http], {0.7: [http]})
    closed, at_load = comparison_tables([Side(target, "http")] * 2, [seen, seen])
    assert closed.count(f"| {http.goodput:.2f} | 1.000 |") == at_load.count("| 1.000 |") == 2


def test_what_was_lost_is_not_forgotten() -> None:
    answered = [Answer(i, 0, 0, 0, 10, 200, "ok", {}) for i in range(98)]
    refused = Answer(98, 0, 0, 0, 1, 429, "refused", {})
    step = Step("130 %", "http", Outcome([*answered, refused], 110, 1, 1, []), Watched(), 1, share=1.3)
    assert step.unsent == 11
    assert step.codes == {"200": 98, "429": 1}
    assert step.latency_ms(0.5) == 10
    assert step.latency_ms(0.99) == math.inf


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=300),
    st.integers(0, 50),
    st.sampled_from([0.5, 0.9, 0.99]),
)
def test_percentiles(values: list[float], lost: int, share: float) -> None:
    found = percentile(values, share, lost)
    everything = [*values, *[math.inf] * lost]
    if len(everything) < round(1 / (1 - share)):
        assert found is None
    else:
        assert found is not None
        assert sum(value <= found for value in everything) >= share * len(everything) - 1e-6
        assert sum(value < found for value in everything) < share * len(everything) + 1e-6


@settings(deadline=None, max_examples=50)
@given(st.floats(0.5, 200), st.floats(0.5, 200), st.floats(1, 20), st.integers(0, 99), st.integers(1, 20))
def test_arrivals_wait_for_their_tick_and_no_longer_than_they_must(
    rate: float, end_rate: float, seconds: float, seed: int, deck: int
) -> None:
    for end in (None, end_rate):
        schedule = make_schedule(rate, seconds, deck, seed, end)
        due = schedule.due_s
        number = len(due)
        slope = (schedule.end_rate - schedule.rate) / seconds
        begun = schedule.rate * due + slope * due**2 / 2  # iterations k6 has begun by then
        assert abs(number - seconds * (schedule.rate + schedule.end_rate) / 2) <= 1
        assert np.all(np.diff(due) >= 0)
        assert np.all(begun[due <= seconds] >= np.arange(number)[due <= seconds] - 1e-6)
        counts = np.bincount(schedule.pictures, minlength=deck)
        assert counts.max() - counts.min() <= 1


def test_poisson_arrivals_are_poisson() -> None:
    gaps = np.diff(make_schedule(100, 60, 1, 0).due_s)
    assert gaps.mean() == pytest.approx(0.01, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential


def test_counters_between_two_scrapes() -> None:
    def buckets(*counts: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        bounds = ("1.0", "2.0", "+Inf")
        return {
            ("b_bucket", (("le", bound), ("model", "m"))): float(count)
            for bound, count in zip(bounds, counts, strict=True)
        }

    assert histogram(buckets(3, 4, 4), buckets(5, 9, 10), "b") == {"1.0": 2, "2.0": 3, "+Inf": 1}
    assert histogram({}, buckets(5, 9, 10), "b") == {"1.0": 5, "2.0": 4, "+Inf": 1}
    stage: tuple[tuple[str, str], ...] = (("model", "m"), ("stage", "infer"))
    before = {("quietframe_stage_seconds_sum", stage): 1.0, ("quietframe_stage_seconds_count", stage): 2.0}
    after = {("quietframe_stage_seconds_sum", stage): 2.0, ("quietframe_stage_seconds_count", stage): 6.0}
    assert stage_means(before, after) == {"infer": 250.0}
    assert stages_of("decode;dur=1.5, queue;dur=0.2, cdn") == {"decode": 1.5, "queue": 0.2}
    assert ratio([2, 8, 3], [1, 2, 1]) == 3
    assert math.isnan(ratio([1], [0]))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--url", "http://192.0.2.1:3000"], "--allow-remote"),
        (["--url", "http://127.0.0.1:3000", "--grpc", "192.0.2.1:3001"], "--allow-remote"),
        (["--url", "127.0.0.1:3000"], "http://"),
        (["--url", "http://127.0.0.1:9"], "does not answer"),
        (["--vs", "no-such-revision"], "no-such-revision"),
        (["--vs-setting", "LANE=1"], "LANES=1"),
        (["--vs-setting", "PORT=1"], "addresses"),
        (["--vs", "HEAD", "--vs-setting", "LANES=1"], "exclude"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments: list[str], word: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "report")])
    assert done.exit_code in (1, 2)
    assert word in done.output.splitlines()[-1]


def test_a_model_that_is_not_there_is_named_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    place = ["--url", server.url, "--grpc", server.grpc, "--out", str(tmp_path / "report")]
    done = CliRunner().invoke(main, [*place, "--model", "frames-fats"])
    assert done.exit_code == 1
    assert "no model frames-fats (status 404)" in done.output
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("seed", ["-1", str(2**31)])
@pytest.mark.parametrize("command", [main, peers], ids=["loadtest", "peers"])
def test_a_seed_that_cannot_be_used_is_refused_with_the_range(
    command: click.Command, seed: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(command, ["--out", str(tmp_path / "report"), "--seed", seed])
    assert done.exit_code == 2
    assert f"{seed} is not in the range 0<=x<=2147483647" in done.output
    assert not (tmp_path / "report").exists()
