"""What docs/ promises: its settings are the code's, its commands are there, its plan is what it computes."""

import contextlib
import io
import re

from service.settings_table import settings_table
from tests.conftest import ROOT

OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
CAPACITY = (ROOT / "docs" / "capacity.md").read_text("utf-8")
TIERS = (ROOT / "docs" / "tiers.md").read_text("utf-8")


def test_the_settings_are_those_of_the_code() -> None:
    assert settings_table() in OPERATIONS, "paste what `python -m service.settings_table` prints"


def test_the_plan_is_what_its_formula_computes() -> None:
    code, table = re.findall(r"```(?:python|text)\n(.*?)```", CAPACITY, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == table


def test_every_series_is_explained() -> None:
    source = (ROOT / "service" / "metrics.py").read_text("utf-8")
    series = set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(quietframe_\w+)"', source))
    assert len(series) >= 7
    named = {name.removesuffix("_total") for name in re.findall(r"`(quietframe_\w+)", OPERATIONS)}
    assert named == series


def test_links_between_pages_lead_somewhere() -> None:
    for page in (OPERATIONS, CAPACITY, TIERS):
        for target in re.findall(r"\]\((?!https?:)([^)#]*)", page):
            assert not target or (ROOT / "docs" / target).exists(), target
