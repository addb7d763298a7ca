"""The same model behind bare Starlette, as one writes it in an afternoon: decode, run and encode in threads.

One inference for each core beside the others, which is what gets the most through; no limits, no batches.
"""

import asyncio
import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.enable_mem_pattern = False
session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def clean(data: bytes) -> tuple[bytes, str]:
    image = Image.open(io.BytesIO(data))
    format = image.format or ""
    pixels = np.asarray(image.convert("RGB"))[None]
    denoised = session.run(None, {"image": pixels, "strength": np.ones(1, np.float32)})[0][0]
    file = io.BytesIO()
    Image.fromarray(denoised).save(file, format, quality=90)
    return file.getvalue(), Image.MIME[format]


async def denoise(request: Request) -> Response:
    data = await request.body()
    content, media_type = await asyncio.get_running_loop().run_in_executor(pool, clean, data)
    return Response(content, media_type=media_type)


async def is_ready(request: Request) -> Response:
    return PlainTextResponse("ready")


app = Starlette(routes=[Route("/v1/denoise", denoise, methods=["POST"]), Route("/readyz", is_ready)])
