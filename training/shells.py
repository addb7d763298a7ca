"""ONNX text around a network, so that every runtime gets the same pixels: bytes in, bytes out.

Bytes to 0..1, padding to the network's multiple, clipping, rounding, cropping. Where the network
goes stands quietframe.Network. Layout changes run on bytes where they can.
"""

from model_store import Tensor

OPSET = 18
_ELEMENTS = {"uint8": "uint8", "float32": "float"}

_RESIDUAL = """
denoiser (uint8[N, H, W, 3] image, float[N] strength) => (uint8[N, H, W, 3] denoised) {{
  sides = Shape <start = 1, end = 3> (image)
  alignment = Constant <value_ints = [{alignment}]> ()
  minus_sides = Neg (sides)
  extra = Mod (minus_sides, alignment)
  before = Constant <value_ints = [0, 0, 0, 0, 0]> ()
  zero = Constant <value_ints = [0]> ()
  pads = Concat <axis = 0> (before, extra, zero)
  padded = Pad <mode = "edge"> (image, pads)
  padded_sides = Add (sides, extra)
  side = Constant <value_ints = [{unshuffle}]> ()
  stripe = Constant <value_ints = [{stripe}]> ()
  block = Constant <value_ints = [{block}]> ()
  rgb = Constant <value_ints = [3]> ()
  cells = Div (padded_sides, side)
  rows, columns = Split <axis = 0, num_outputs = 2> (cells)
  as_stripes = Concat <axis = 0> (zero, rows, side, columns, stripe)
  as_blocks = Concat <axis = 0> (zero, rows, columns, side, stripe)
  as_folded = Concat <axis = 0> (zero, rows, columns, block)
  as_image = Concat <axis = 0> (zero, padded_sides, rgb)
  stripes = Reshape (padded, as_stripes)
  blocks = Transpose <perm = [0, 1, 3, 2, 4]> (stripes)
  folded_bytes = Reshape (blocks, as_folded)
  levels = Cast <to = 1> (folded_bytes)
  white = Constant <value_float = 255.0> ()
  scaled = Div (levels, white)
  folded = Transpose <perm = [0, 3, 1, 2]> (scaled)
  {network}
  noise_last = Transpose <perm = [0, 2, 3, 1]> (noise)
  axes = Constant <value_ints = [1, 2, 3]> ()
  share = Unsqueeze (strength, axes)
  removed = Mul (noise_last, share)
  clean = Sub (scaled, removed)
  black = Constant <value_float = 0.0> ()
  one = Constant <value_float = 1.0> ()
  clipped = Clip (clean, black, one)
  clean_levels = Mul (clipped, white)
  rounded = Round (clean_levels)
  bytes = Cast <to = 2> (rounded)
  clean_blocks = Reshape (bytes, as_blocks)
  clean_stripes = Transpose <perm = [0, 1, 3, 2, 4]> (clean_blocks)
  whole = Reshape (clean_stripes, as_image)
  corner = Constant <value_ints = [0, 0]> ()
  height_width = Constant <value_ints = [1, 2]> ()
  denoised = Slice (whole, corner, sides, height_width)
}}
"""

_NETWORK = "noise = quietframe.Network (folded)"
_HALF_NETWORK = """folded_half = Cast <to = 10> (folded)
  noise_half = quietframe.Network (folded_half)
  noise = Cast <to = 1> (noise_half)"""

_PADDED = """
  sides = Shape <start = 1, end = 3> (image)
  alignment = Constant <value_ints = [{alignment}]> ()
  minus_sides = Neg (sides)
  extra = Mod (minus_sides, alignment)
  before = Constant <value_ints = [0, 0, 0, 0, 0]> ()
  zero = Constant <value_ints = [0]> ()
  pads = Concat <axis = 0> (before, extra, zero)
  padded = Pad <mode = "edge"> (image, pads)
"""

_SCALED = """
  planes = Transpose <perm = [0, 3, 1, 2]> ({image})
  levels = Cast <to = 1> (planes)
  full = Constant <value_float = 255.0> ()
  scaled = Div (levels, full)
"""

_BYTES = """
  black = Constant <value_float = 0.0> ()
  one = Constant <value_float = 1.0> ()
  white = Constant <value_float = 255.0> ()
  clipped = Clip (clean, black, one)
  clean_levels = Mul (clipped, white)
  rounded = Round (clean_levels)
  bytes = Cast <to = 2> (rounded)
  {denoised} = Transpose <perm = [0, 2, 3, 1]> (bytes)
"""

_CROPPED = """
  scale = Constant <value_ints = [{scale}]> ()
  stretched = Mul (sides, scale)
  corner = Constant <value_ints = [0, 0]> ()
  height_width = Constant <value_ints = [1, 2]> ()
  denoised = Slice (whole, corner, stretched, height_width)
"""


def residual(alignment: int, unshuffle: int, *, half: bool) -> str:
    """Around a network that estimates the folded noise, in float16 or float32; with `strength`.

    Folding is SpaceToDepth, but on bytes and with channels last, whose reordering ONNX Runtime takes into
    the convolutions' own: a quarter of the time of SpaceToDepth and DepthToSpace on numbers.
    """
    return _head() + _RESIDUAL.format(
        network=_HALF_NETWORK if half else _NETWORK,
        alignment=alignment,
        unshuffle=unshuffle,
        stripe=3 * unshuffle,
        block=3 * unshuffle**2,
    )


def restoring(image: Tensor, denoised: Tensor, alignment: int, scale: int) -> str:
    """Around a network that gives the clean image, of any size or of one."""
    network = "clean = quietframe.Network (scaled)\n"
    if all(isinstance(side, int) for side in image.shape[1:]):
        body = _SCALED.format(image="image") + network + _BYTES.format(denoised="denoised")
    else:
        body = _PADDED.format(alignment=alignment) + _SCALED.format(image="padded") + network
        body += _BYTES.format(denoised="whole") + _CROPPED.format(scale=scale)
    return _graph(image, denoised, body)


def encoder(image: Tensor, latent: Tensor) -> str:
    return _graph(image, latent, _SCALED.format(image="image") + "latent = quietframe.Network (scaled)\n")


def decoder(latent: Tensor, denoised: Tensor) -> str:
    return _graph(
        latent, denoised, "clean = quietframe.Network (latent)\n" + _BYTES.format(denoised="denoised")
    )


def bare(given: Tensor, answer: Tensor) -> str:
    """Around a network of numbers, which needs nothing."""
    return _graph(given, answer, f"{answer.name} = quietframe.Network ({given.name})\n")


def _graph(given: Tensor, answer: Tensor, body: str) -> str:
    return f"{_head()}denoiser ({_typed(given)}) => ({_typed(answer)}) {{\n{body}}}\n"


def _head() -> str:
    return f'<ir_version: 10, opset_import: ["" : {OPSET}, "quietframe" : 1]>'


def _typed(tensor: Tensor) -> str:
    sides = ", ".join(str(side).replace("*", "_times_") for side in tensor.shape)
    return f"{_ELEMENTS[tensor.dtype]}[{sides}] {tensor.name}"
