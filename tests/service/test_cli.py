import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import psutil
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from model_store import default_root
from service.throughput import _rate
from tests.conftest import ROOT, free_port, running_server

Pixels = npt.NDArray[np.uint8]


def quietframe(*arguments: object, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **{f"QUIETFRAME_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


@pytest.fixture
def frames(photo: Pixels, tmp_path: Path) -> Path:
    """Two noisy frames, one of them in a folder below, and a broken one."""
    folder = tmp_path / "frames"
    (folder / "night").mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 25, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(folder / "a.png")
    Image.fromarray(noisy[:100]).save(folder / "night" / "b.jpg", quality=95)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder_is_cleaned_and_a_broken_file_named(frames: Path, photo: Pixels, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = quietframe("denoise", frames, "-o", out)
    assert done.returncode == 1
    assert "failed: " in done.stderr
    assert "broken.png" in done.stderr
    assert "2 of 3 images" in done.stderr
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["a.png", "night/b.jpg"]
    before, after = (np.asarray(Image.open(folder / "a.png")) for folder in (frames, out))
    assert peak_signal_noise_ratio(photo, after) > peak_signal_noise_ratio(photo, before) + 8


def test_the_noise_of_each_file_is_printed(frames: Path, tmp_path: Path) -> None:
    done = quietframe(
        "denoise", frames / "a.png", frames / "night", "-o", tmp_path / "out", "--noise", "auto"
    )
    assert done.returncode == 0, done.stderr
    told = dict(line.split("\t") for line in done.stdout.splitlines())
    assert set(told) == {str(frames / "a.png"), str(frames / "night" / "b.jpg")}
    assert all(10 < float(sigma) < 26 for sigma in told.values())  # JPEG itself takes some away


def test_one_file_to_one_file_in_the_format_of_its_name(frames: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.webp"
    done = quietframe("denoise", frames / "a.png", "-o", target)
    assert done.returncode == 0, done.stderr
    with Image.open(target) as image:
        assert (image.format, image.size) == ("WEBP", (451, 300))


def test_files_are_as_private_as_their_owner_has_it(frames: Path, tmp_path: Path) -> None:
    noisy, clean = frames / "a.png", tmp_path / "clean.png"
    command = [sys.executable, "-m", "service.cli", "denoise", str(noisy), "-o", str(clean)]
    subprocess.run(command, cwd=ROOT, umask=0o077, check=True, capture_output=True)
    assert clean.stat().st_mode & 0o777 == 0o600


def test_a_store_may_be_named_from_any_folder(frames: Path, tmp_path: Path) -> None:
    (tmp_path / "my-models").symlink_to(default_root())
    with running_server(folder=tmp_path, MODEL_STORE="my-models") as server:
        assert quietframe("health", "--port", server.port).stdout == "ready\n"


def test_a_certificate_may_be_named_from_any_folder_and_be_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    authority = ["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"]
    ours = ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "this-year.pem"]
    for files in (authority, [*ours, "-CA", "ca.pem", "-CAkey", "ca.key"]):
        subprocess.run([*request, *files], check=True, capture_output=True, cwd=tmp_path)
    cert = tmp_path / "cert.pem"
    cert.symlink_to("this-year.pem")
    monkeypatch.setenv("HOME", str(tmp_path))
    with running_server(folder=tmp_path, TLS_CERT="cert.pem", TLS_KEY="~/key.pem") as server:
        tls = {"TLS_CERT": str(cert), "TLS_KEY": str(tmp_path / "key.pem")}
        assert quietframe("health", "--port", server.port, **tls).stdout == "ready\n"
        command = Path(f"/proc/{server.process.pid}/cmdline").read_text()
        assert str(cert) in command.split("\0")  # the link, which a worker that starts anew follows anew


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"]
    for name, encrypted in (
        ("one", ["-nodes"]),
        ("other", ["-nodes"]),
        ("locked", ["-passout", "pass:secret"]),
    ):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*request, *encrypted, *files], check=True, capture_output=True, cwd=tmp_path)
    for cert, key in (("one.pem", "other.key"), ("locked.pem", "locked.key"), ("one.key", "one.pem")):
        done = quietframe("serve", TLS_CERT=str(tmp_path / cert), TLS_KEY=str(tmp_path / key))
        assert done.returncode == 1
        assert f"QUIETFRAME_TLS_KEY {tmp_path / key} cannot be used" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "value", ["verysecret-verysecret", "", "[verysecret-verysecret", '"verysecret"', "17"]
)
def test_a_list_that_is_none_is_named_and_not_shown(value: str) -> None:
    done = quietframe("health", FORMATS=value, TOKENS=value, PORT="0")
    assert done.returncode == 1
    assert 'QUIETFRAME_FORMATS: not a JSON list; write ["jpeg", "png"]' in done.stderr
    assert "QUIETFRAME_TOKENS: not a JSON list; write [" in done.stderr
    assert "QUIETFRAME_PORT: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "verysecret" not in done.stderr


def test_nothing_is_overwritten_by_mistake(frames: Path, tmp_path: Path) -> None:
    before = (frames / "a.png").read_bytes()
    into_itself = quietframe("denoise", frames, "-o", frames)
    assert into_itself.returncode == 2
    assert "is an input; choose another --out" in into_itself.stderr
    assert (frames / "a.png").read_bytes() == before
    (tmp_path / "a.png").write_bytes(before)
    clash = quietframe("denoise", frames / "a.png", tmp_path / "a.png", "-o", tmp_path / "out")
    assert clash.returncode == 2
    assert "would both become" in clash.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("denoise", "absent.png", "-o", "out"), 2, "absent.png does not exist"),
        (("denoise", "docs/nothing", "-o", "out"), 2, "docs/nothing does not exist"),
        (("denoise", "README.md", "-o", "/dev/null/x", "--model", "nobody"), 1, "no model 'nobody'"),
        (("models", "show", "../x"), 1, "is not a model name"),
        (("models", "list", "--store", "absent"), 1, "holds no models"),
        (("models", "verify", "--store", "absent"), 1, "holds no models"),
        (("models", "update-cards", "--store", "absent"), 1, "holds no models"),
        (("serve", "--port", "0"), 1, "QUIETFRAME_PORT: Input should be greater"),
        (("serve", "--store", "absent"), 1, "no model 'frames-balanced' in the store; there is: none"),
        (("serve", "--store", "~nobody-here/x"), 1, "QUIETFRAME_MODEL_STORE: "),
        (("serve", "--device", "cuda"), 1, "device=cuda"),
        (("health", "--port", "1"), 1, "refused"),
        (("bench", "README.md"), 1, "Not an image by its first bytes"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: tuple[str, ...], status: int, said: str) -> None:
    done = quietframe(*arguments)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nobody", "no model 'nobody'"),
        ("mnist-latent2-encoder", "QUIETFRAME_GRAY_MODEL mnist-latent2-encoder/2 does encode"),
    ],
)
def test_a_model_that_cannot_clean_gray_images_is_refused_at_start(model: str, said: str) -> None:
    done = quietframe("serve", "--port", free_port(), "--grpc-port", "0", GRAY_MODEL=model)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_named_cleans_gray_files_too(frames: Path, tmp_path: Path) -> None:
    gray, gray_model = tmp_path / "gray.png", {"GRAY_MODEL": "frames-camera"}
    with Image.open(frames / "a.png") as image:
        image.convert("L").save(gray)
    arguments = {"by-itself": (), "named": ("--model", "frames-fast"), "camera": ("--model", "frames-camera")}
    clean = {}
    for name, model in arguments.items():
        done = quietframe("denoise", gray, "-o", tmp_path / name, *model, **gray_model)
        assert done.returncode == 0, done.stderr
        clean[name] = (tmp_path / name / "gray.png").read_bytes()
    assert clean["by-itself"] == clean["camera"] != clean["named"]


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = quietframe("serve", "--port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_models_are_listed_shown_and_verified() -> None:
    assert "frames-balanced:1 " in quietframe("models", "list").stdout
    assert '"sha256"' in quietframe("models", "show", "frames-balanced:1").stdout
    verified = quietframe("models", "verify", "--store", default_root())
    assert verified.returncode == 0
    assert "ok  frames-balanced/1  " in verified.stdout


def test_cards_are_printed_and_brought_up_to_date_past_a_broken_one(tmp_path: Path) -> None:
    for name in ("mnist-conv", "mnist-linear"):
        shutil.copytree(default_root() / name, tmp_path / name)
        (tmp_path / name / "1" / "README.md").unlink()
    (tmp_path / "mnist-conv" / "1" / "card.json").write_text("{}")
    updated = quietframe("models", "update-cards", "--store", tmp_path)
    assert updated.returncode == 1
    assert "mnist-conv/1/card.json is not a valid card" in updated.stderr
    page = (tmp_path / "mnist-linear" / "1" / "README.md").read_text("utf-8")
    assert quietframe("models", "card", "mnist-linear:1").stdout == page


def test_a_broken_version_hides_no_other(tmp_path: Path) -> None:
    for name in ("mnist-conv", "mnist-dense", "mnist-linear"):
        shutil.copytree(default_root() / name, tmp_path / name)
    (tmp_path / "mnist-conv" / "1" / "card.json").write_text("{}")
    (tmp_path / "mnist-dense" / "1" / "model.onnx").write_bytes(b"rotten")
    listed = quietframe("models", "list", "--store", tmp_path)
    verified = quietframe("models", "verify", "--store", tmp_path)
    assert "mnist-linear:1 " in listed.stdout
    assert "ok  mnist-linear/1  " in verified.stdout
    assert "mnist-dense/1/model.onnx has sha256" in verified.stderr
    for done in (listed, verified):
        assert done.returncode == 1
        assert "failed: " in done.stderr
        assert "mnist-conv/1/card.json is not a valid card" in done.stderr
    assert quietframe("models", "verify", "mnist-linear", "--store", tmp_path).returncode == 0
    assert quietframe("models", "verify", "mnist-dense", "--store", tmp_path).returncode == 1


def test_a_bench_takes_the_model_and_the_image_that_there_are(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 96), 90, np.uint8)).save(tmp_path / "gray.jpg")
    options = ("--requests", 1, "--seconds", 0)
    tokens = json.dumps(["one that the bench does not have"])
    done = quietframe("bench", tmp_path / "gray.jpg", *options, DEFAULT_MODEL="mnist-conv", TOKENS=tokens)
    assert done.returncode == 0, done.stderr
    assert "HTTP / direct" in done.stdout


@pytest.mark.parametrize("failing", [0, 2])
def test_a_bench_whose_first_call_fails_says_why_and_ends(failing: int) -> None:
    @contextmanager
    def connect(number: int) -> Iterator[Callable[[], object]]:
        yield lambda: refused() if number == failing else None

    def refused() -> None:
        time.sleep(0.2)  # the others are done with theirs by then
        raise click.ClickException("queue full")

    with pytest.raises(click.ClickException, match="queue full"):
        _rate(connect, 3, 0.1)


def test_serve_answers_on_loopback_only_and_health_sees_it() -> None:
    with running_server() as server:
        assert quietframe("health", "--port", server.port).returncode == 0
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        addresses = {line.split()[1] for line in listening.splitlines()}
        for port in (server.port, server.grpc_port):
            listening_on = [each for each in addresses if each.endswith(f":{port:04X}")]
            assert [each[-13:] for each in listening_on] == [f"0100007F:{port:04X}"]  # 127.0.0.1


def test_the_service_listens_where_it_says_and_nowhere_else() -> None:
    """Not for orders to the supervisor of its workers either, which every user of the machine could give."""
    with running_server() as server:
        first = psutil.Process(server.process.pid)
        listening = {
            connection.laddr.port
            for process in (first, *first.children(recursive=True))
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
    assert listening == {server.port, server.grpc_port}
