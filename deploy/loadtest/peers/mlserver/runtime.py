"""The same model as a custom runtime of MLServer: an encoded image in, an encoded image out."""

import io
import os

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, ResponseOutput
from PIL import Image


class Denoiser(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_mem_pattern = False
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        files = payload.inputs[0].data.root
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                ResponseOutput(
                    name="DENOISED",
                    shape=[len(files)],
                    datatype="BYTES",
                    parameters=Parameters(content_type="raw"),
                    data=[self.clean(file) for file in files],
                )
            ],
        )

    def clean(self, data: bytes) -> bytes:
        image = Image.open(io.BytesIO(data))
        pixels = np.asarray(image.convert("RGB"))[None]
        denoised = self.session.run(None, {"image": pixels, "strength": np.ones(1, np.float32)})[0][0]
        file = io.BytesIO()
        Image.fromarray(denoised).save(file, image.format, quality=90)
        return file.getvalue()
