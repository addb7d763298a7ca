"""What a call over gRPC says of errors that are none of its client's."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from model_store import default_root
from service.grpc_server import start_grpc
from service.pipeline import Pipeline
from service.record import Recorder
from service.settings import Settings
from tests.conftest import free_port
from tests.model_store.closed import closed


async def index_of(pipeline: Pipeline) -> Any:
    server = await start_grpc(pipeline, Recorder(access_log=True))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{pipeline.settings.grpc_port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            return await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    finally:
        await server.stop(None)
        await pipeline.close()


def test_a_bug_is_logged_and_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Any:
        raise RuntimeError("/srv/models/secret")

    async def main() -> None:
        pipeline = Pipeline(Settings(grpc_port=free_port(), device="cpu"))
        monkeypatch.setattr(pipeline.store, "readable_cards", fail)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await index_of(pipeline)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details() == "Internal error"

    asyncio.run(main())
    assert "RuntimeError: /srv/models/secret" in caplog.text
    assert '"status": "INTERNAL", "reason": "internal"' in capsys.readouterr().out


def test_a_store_that_may_not_be_read_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    shutil.copytree(default_root() / "mnist-linear", tmp_path / "secret" / "mnist-linear")

    async def main() -> None:
        store, model = Path("secret"), "mnist-linear"
        settings = Settings(grpc_port=free_port(), device="cpu", model_store=store, default_model=model)
        pipeline = Pipeline(settings)
        with closed(Path("secret")), pytest.raises(grpc.aio.AioRpcError) as caught:
            await index_of(pipeline)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "try again, or see the service's log" in caught.value.details()
        assert "secret" not in caught.value.details()

    asyncio.run(main())
    assert "secret cannot be read: Permission denied" in caplog.text
