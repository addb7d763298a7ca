"""The page at /docs in a real browser; runs where Chromium is installed."""

import shutil
import subprocess

import pytest

from tests.conftest import Server

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_interface_is_shown(server: Server) -> None:
    assert CHROMIUM
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    page = subprocess.run(
        [*command, "--dump-dom", f"{server.url}/docs"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "Denoise one image" in page
    assert "Unable to render" not in page
