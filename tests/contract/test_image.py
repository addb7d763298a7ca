"""The image: clean by hadolint, locked by hash; with --soak it is built and run as a pod would run it."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from packaging.requirements import Requirement
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from tests.conftest import ROOT, free_port
from tests.service.test_codec import file_of

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCKS = ROOT / "deploy" / "requirements"
BASE, IMAGE = "localhost/python-base", "localhost/quietframe:test"
BUILDAH = {**os.environ, "BUILDER": "buildah", "BUILDAH_ISOLATION": "chroot", "IMAGE": IMAGE}
NEEDED = ("buildah", "mmdebstrap", "unshare", "chroot")


def run(*command: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_the_dockerfile_is_clean() -> None:
    done = run(Path(sys.executable).parent / "hadolint", "deploy/Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_the_lock_is_what_the_project_asks_for(extra: str) -> None:
    """`make lock` writes it anew."""
    blocks = re.split(r"\n(?=\S)", (LOCKS / f"{extra}.txt").read_text("utf-8"))
    pins = [Requirement(block.split("\\")[0]) for block in blocks if not block.startswith("#")]
    assert all(block.count("--hash=sha256:") for block in blocks if not block.startswith("#"))
    wanted = PROJECT["dependencies"] + [
        each for name in (extra, "otel") for each in PROJECT["optional-dependencies"][name]
    ]
    for requirement in map(Requirement, wanted):
        found = [pin for pin in pins if pin.name.lower() == requirement.name.lower()]
        assert found, requirement
        for pin in found:  # one for each range of Python versions
            version = str(pin.specifier).removeprefix("==")
            assert requirement.specifier.contains(version), (requirement, version)


@pytest.mark.parametrize(
    ("target", "builder", "status", "said"),
    [
        ("tpu", "", 2, "tpu is not a target; there are cpu and gpu"),
        ("cpu", "kaniko", 1, "none of docker, podman and buildah works here"),
    ],
)
def test_an_image_that_cannot_be_built(target: str, builder: str, status: int, said: str) -> None:
    done = run("deploy/image.sh", target, BUILDER=builder)
    assert done.returncode == status
    assert said in done.stderr


def buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], env=BUILDAH, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def built(soak: bool) -> Iterator[Path]:
    """The root file system of the image, as it was built from the checkout."""
    missing = [tool for tool in NEEDED if not shutil.which(tool)]
    if not soak or missing or os.getuid() != 0:
        pytest.skip(
            f"minutes of --soak, root, and these, of which are missing: {', '.join(missing) or 'none'}"
        )
    if not buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        subprocess.run(["deploy/base.sh", BASE], cwd=ROOT, env=BUILDAH, check=True)
    subprocess.run(["make", "image", f"BASE={BASE}"], cwd=ROOT, env=BUILDAH, check=True)
    container = buildah("from", IMAGE)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("rm", container)


@contextmanager
def as_a_pod(root: Path, *command: str, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command as the image's user: no capabilities, read-only but for /tmp, its process number 1."""
    image = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    environment = {**dict(each.split("=", 1) for each in image["Env"]), **settings}
    prepare = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; mount --rbind /dev "$1/dev"; '
    prepare += 'mount -t proc proc "$1/proc"; mount -t tmpfs -o noexec,nosuid tmpfs "$1/tmp"; '
    prepare += 'root=$1; shift; exec chroot "$root" "$@"'
    user, group = image["User"].split(":")
    inside = ["env", "-C", image["WorkingDir"], "setpriv", f"--reuid={user}", f"--regid={group}"]
    inside += ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    full = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", prepare, "sh", str(root)]
    with subprocess.Popen([*full, *inside, *command], env=environment) as process:
        try:
            yield process
        finally:
            process.kill()  # and its child with it


def test_the_image_serves_as_a_pod(built: Path, photo: npt.NDArray[np.uint8]) -> None:
    image = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    assert (image["User"], image["StopSignal"]) == ("10001:10001", "SIGTERM")
    assert image["Healthcheck"]["Test"] == ["CMD", "quietframe", "health"]
    assert image["Labels"]["org.opencontainers.image.version"] == PROJECT["version"]
    size = json.loads(buildah("images", "--json", IMAGE))[0]["size"]
    print(f"size of the image: {size}")
    assert float(size.removesuffix(" MB")) < 600
    packages = next(built.glob("opt/quietframe/lib/python3*/site-packages"))
    assert not [name for name in ("torch", "pip", "training", "tests") if (packages / name).exists()]
    assert not [name for name in ("cc", "gcc", "c++", "ld") if (built / "usr/bin" / name).exists()]

    port, grpc_port = free_port(), free_port()
    ports = {"QUIETFRAME_PORT": str(port), "QUIETFRAME_GRPC_PORT": str(grpc_port)}
    with as_a_pod(built, "sh", "-c", "! touch /opt/x && touch /tmp/x && [ $(id -u) = 10001 ]") as pod:
        assert pod.wait(30) == 0
    with as_a_pod(built, *image["Entrypoint"], *image["Cmd"], **ports) as pod:
        wait_until_healthy(built, ports, pod)
        noisy = np.clip(photo + np.random.default_rng(0).normal(0, 25, photo.shape), 0, 255).astype(np.uint8)
        url = f"http://127.0.0.1:{port}/v1/denoise"
        answer = httpx.post(url, content=file_of(Image.fromarray(noisy), "png"), timeout=60)
        clean = np.asarray(Image.open(io.BytesIO(answer.raise_for_status().content)))
        assert peak_signal_noise_ratio(photo, clean) > peak_signal_noise_ratio(photo, noisy) + 8
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        first = Path(f"/proc/{pod.pid}/task/{pod.pid}/children").read_text("ascii").split()[0]
        os.kill(int(first), 15)
        assert pod.wait(20) == 0


def wait_until_healthy(root: Path, ports: dict[str, str], pod: "subprocess.Popen[bytes]") -> None:
    """As the HEALTHCHECK asks."""
    for _ in range(60):
        assert pod.poll() is None, "the service ended while starting"
        with as_a_pod(root, "quietframe", "health", **ports) as check:
            if check.wait(20) == 0:
                return
        time.sleep(1)
    raise AssertionError("not healthy after a minute")
