"""A model card as Markdown, the README.md of a version's folder; card.json is where all of it comes from."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from model_store.card import ModelCard, Task, Tensor, Variant

_PURPOSES: dict[Task, str] = {
    "denoise": "It takes an image and gives it back with less noise, in the same size.",
    "super-resolution": "It takes an image and gives it back larger and with less noise.",
    "encode": "It takes an image and gives the code of it: a few numbers that `decode` models read.",
    "decode": "It takes a code and gives the image that belongs to it.",
    "denoise-points": "It takes points and gives them back nearer to where they came from.",
}
_MEANINGS = {
    "image": "levels 0 to 255, {colour}",
    "denoised": "levels 0 to 255, {colour}",
    "strength": "0 to 1, one for each image",
    "latent": "the code, a line for each image",
    "points": "coordinates, a line for each point",
    "restored": "coordinates, a line for each point",
}
_STRENGTH = """
`strength` is the share of the noise found that is removed: 1 all of it, 0 none, which gives back what went
in. Without it, it is 1.
"""
_NOISE = """
With `noise=auto` the service reports how noisy the image was: the root mean square of what is removed at
strength 1, in levels of 255.{trained}
"""
_TRAINED = " It was trained on white noise of {}: what it says of more is a guess."
_TILES = """
Large images may be cut into tiles and give the same pixels: read each with {overlap} pixels around it, from
a row and column that are multiples of {alignment}, and keep its core.
"""
_PAGE = """# {name}, version {version}

{summary}.

## What it is for

{purpose}

What it is not for, and where it ends:

{limits}

## How to ask for it

```sh
{request}
```

asks a service on this machine (`quietframe serve`).

## What goes in and out

{tensors}

A side with a name may have any length; N is how many there are in a batch.
{strength}{noise}{tiles}
## How good it is

{metrics}

## What it has learned from

{data}

{corruption}

## What it is

{facts}

This page is written from [card.json](card.json), which has the rest. `model.onnx` has the SHA-256
`{sha256}`.
"""


def card_markdown(card: ModelCard) -> str:
    """The card for people: purpose, limits, use, contract, figures, data and licences."""
    return _PAGE.format(
        name=card.name,
        version=card.version,
        summary=card.summary.rstrip("."),
        purpose=_PURPOSES[card.task],
        limits="\n".join(f"- {limit}" for limit in card.limits) or "- Nothing is stated.",
        request=_request(card),
        tensors=_tensors(card),
        strength=_STRENGTH if card.takes_strength else "",
        noise=_noise(card),
        tiles=_tiles(card),
        metrics=_metrics(card),
        data=_data(card),
        corruption=_corruption(card),
        facts=_facts(card),
        sha256=card.sha256,
    )


def _request(card: ModelCard) -> str:
    curl, host = "curl -sS --fail-with-body", "http://localhost:3000"
    if card.takes_image and card.gives_image:
        query = f"{host}/v1/denoise?model={card.name}:{card.version}"
        return f"{curl} --data-binary @noisy.png -o clean.png \\\n    '{query}'"
    tensor: dict[str, Any] = {"name": "IMAGE", "datatype": "BYTES", "shape": [1], "data": ["FILE"]}
    if not card.takes_image:
        first = card.inputs[0]
        numbers = [0.5] * next((side for side in first.shape[1:] if isinstance(side, int)), 1)
        tensor = {"name": first.name, "datatype": "FP32", "shape": [1, len(numbers)], "data": numbers}
    body = json.dumps({"inputs": [tensor]}).replace("FILE", "'\"$(base64 -w0 noisy.png)\"'")
    return f"{curl} -d '{body}' \\\n    {host}/v2/models/{card.name}/versions/{card.version}/infer"


def _tensors(card: ModelCard) -> str:
    colour = "red, green, blue" if card.colour == "rgb" else "gray"

    def line(direction: str, tensor: Tensor) -> Sequence[str]:
        shape = ", ".join(map(str, tensor.shape))
        meaning = _MEANINGS.get(tensor.name, "").format(colour=colour)
        return (direction, f"`{tensor.name}`", tensor.dtype, f"`[{shape}]`", meaning)

    lines = [line("in", each) for each in card.inputs] + [line("out", each) for each in card.outputs]
    return markdown_table(("", "name", "type", "shape", "what it holds"), lines)


def _noise(card: ModelCard) -> str:
    if card.task != "denoise":
        return ""
    sigma = card.trained_sigma
    return _NOISE.format(trained=_TRAINED.format(_span(sigma)) if sigma else "")


def _tiles(card: ModelCard) -> str:
    any_size = card.takes_image and any(isinstance(side, str) for side in card.inputs[0].shape[1:])
    if not (any_size and card.gives_image):
        return ""
    return _TILES.format(overlap=card.tile_overlap, alignment=card.alignment)


def _metrics(card: ModelCard) -> str:
    parts = []
    if card.metrics:
        rows = [
            (
                f"{each.dataset} ({each.images})",
                each.corruption,
                f"{each.psnr_noisy:.2f} / {each.ssim_noisy:.3f}",
                f"{each.psnr_restored:.2f} / {each.ssim_restored:.3f}",
            )
            for each in card.metrics
        ]
        said = "PSNR in dB / SSIM, means over images; higher is better.\n\n"
        parts.append(said + markdown_table(("images", "corruption", "noisy", "restored"), rows))
    if card.figures:
        parts.append(
            markdown_table(("measured", ""), [(name, f"{value:g}") for name, value in card.figures.items()])
        )
    return "\n\n".join(parts) or "Nothing was measured."


def _data(card: ModelCard) -> str:
    rows = [(each.name, str(each.images), each.licence) for each in card.training_data]
    return markdown_table(("data", "used", "licence"), rows)


def _corruption(card: ModelCard) -> str:
    rows = [(each.kind, f"{each.share:.0%}", _levels(each.levels)) for each in card.corruption]
    said = "It was corrupted on the way, with these shares and levels (sigma in levels of 255):\n\n"
    return (
        said + markdown_table(("corruption", "share", "levels"), rows)
        if rows
        else "Its corruption is not stated."
    )


def _levels(levels: dict[str, Any]) -> str:
    """`sigma 0 to 55, demosaic 0.7`; the steps of a sequence one after the other."""
    kept = "" if levels.get("gray", True) else "; not on gray images"
    if isinstance(steps := levels.get("steps"), list | tuple):
        return ", then ".join(map(_step, steps)) + kept
    return ", ".join(f"{name} {_span(value)}" for name, value in _without(levels, "gray").items()) + kept


def _step(step: Any) -> str:
    match step:
        case {"kind": kind}:
            return f"{kind} {_levels(_without(step, 'kind', 'weight'))}"
    return str(step)


def _without(step: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in step.items() if name not in names}


def _span(value: Any) -> str:
    match value:
        case [int() | float() as low, int() | float() as high]:
            return f"{low:g}" if low == high else f"{low:g} to {high:g}"
        case float():
            return f"{value:g}"
    return str(value)


def _facts(card: ModelCard) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in card.libraries.items())
    rows = [
        ("network", f"{card.architecture}; {', '.join(_hyperparameters(card))}"),
        ("parameters", f"{card.parameters:,}"),
        ("multiply-adds", f"{card.macs_per_pixel:,.0f} for a pixel"),
        ("trained", ", ".join(_training(card))),
        *((f"in {each.precision}", _variant(each)) for each in card.variants),
        ("made", f"{card.created:%Y-%m-%d}, commit {card.git_commit[:12]}, {libraries}"),
    ]
    return markdown_table(("", ""), rows)


def _variant(variant: Variant) -> str:
    losses = variant.psnr_loss.values()
    lost = f"{max(losses):.3f} dB lost at most" if losses else "what it loses is not stated"
    return f"{variant.speed_ratio:g} times as fast on {variant.measured_on}; {lost}"


def _hyperparameters(card: ModelCard) -> Iterable[str]:
    return (f"{name} {value}" for name, value in card.hyperparameters.items())


def _training(card: ModelCard) -> Iterable[str]:
    earlier = card.training.get("earlier")
    runs = [*earlier, card.training] if isinstance(earlier, list | tuple) else [card.training]
    for run in (each for each in runs if isinstance(each, dict)):
        if begun := run.get("model"):
            yield f"begun with {begun}"
        fit = run.get("fit")
        loss = run.get("loss") or (fit.get("loss") if isinstance(fit, dict) else None)
        if loss:
            yield f"{run.get('steps', '?')} steps with the loss {loss} in {run.get('minutes', '?')} minutes"
    if averaged := sum(_averaged(run) for run in runs):
        yield f"weights averaged with those of {averaged} run{'s' if averaged > 1 else ''} beside the last"
    yield f"seed {card.seed}"


def _averaged(run: Any) -> int:
    others = run.get("averaged_with") if isinstance(run, dict) else None
    return len(others) if isinstance(others, list | tuple) else 0


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what a cell holds ends neither its cell nor its line."""
    lines = [f"| {' | '.join(map(_cell, cells))} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def _cell(text: str) -> str:
    """A folder's or a licence's name must not end its cell or its line."""
    return " ".join(text.replace("|", "\\|").split())
