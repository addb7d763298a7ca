"""A replica that goes, as clients of gRPC see it."""

import concurrent.futures
import contextlib
import queue
import signal
import socket
import time
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.conftest import running_server
from tests.service.test_promises import sampled

Pixels = npt.NDArray[np.uint8]


def takes_connections(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def test_grpc_clients_of_a_replica_that_drains_are_sent_to_the_next(photo: Pixels) -> None:
    slow = np.tile(photo, (4, 4, 1))[None]
    with (
        running_server() as server,
        tritonclient.grpc.InferenceServerClient(server.grpc) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        tensor = tritonclient.grpc.InferInput("image", list(slow.shape), "UINT8")
        tensor.set_data_from_numpy(slow)
        held = pool.submit(client.infer, "frames-high", [tensor])
        while not sampled(server, "quietframe_pending_pixels"):
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        while not held.done() and takes_connections(server.grpc_port):
            time.sleep(0.05)
        assert not held.done()
        assert held.result(timeout=60).as_numpy("denoised").shape == slow.shape


def test_grpc_connections_of_some_age_end_and_their_streams_go_on(photo: Pixels) -> None:
    frame = pb.ModelInferRequest(model_name="frames-fast", raw_input_contents=[photo[:64, :64].tobytes()])
    frame.inputs.add(name="image", datatype="UINT8", shape=[1, 64, 64, 3])
    frames: queue.Queue[Any] = queue.Queue()
    states: queue.Queue[grpc.ChannelConnectivity] = queue.Queue()
    with (
        running_server(GRPC_CONNECTION_AGE_S="1") as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        channel.subscribe(states.put)
        answers = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(frames.get, None))
        frames.put(frame)
        assert not next(answers).error_message
        while states.get(timeout=30) != grpc.ChannelConnectivity.READY:
            pass
        assert states.get(timeout=30) == grpc.ChannelConnectivity.IDLE
        frames.put(frame)
        assert not next(answers).error_message
        frames.put(None)
        assert not list(answers)
