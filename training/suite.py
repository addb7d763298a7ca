"""The standard suite: all that a sceptic would ask of a denoiser, on any folder of clean images."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from training import frontier, identity, legibility, seams, tables
from training.cases import Folder
from training.evaluate import Row
from training.identity import Identity
from training.legibility import clean_pages
from training.peers import THREADS, Denoiser
from training.plots import save
from training.sheet import sheet, strips
from training.subject import Subject


@dataclass(frozen=True)
class Findings:
    """Everything measured in one run, image by image."""

    model: str
    beside: list[str]
    sha256: str
    threads: int
    rows: list[Row]
    identity: list[Identity]
    seams: dict[str, dict[str, list[seams.Seams]]]
    legibility: list[legibility.Reading]


def measure(
    subject: Subject,
    beside: Sequence[Subject],
    folders: Sequence[Folder],
    denoisers: Sequence[Denoiser],
    rows: list[Row],
) -> Findings:
    """Run what the suite has beside the rows of `evaluate`, which are measured before.

    Args:
        subject: what is judged.
        beside: other models of ours.
        denoisers: all that run, `subject.denoiser` the last.
    """
    return Findings(
        subject.denoiser.name,
        [each.denoiser.name for each in beside],
        sha256(subject.graph).hexdigest(),
        THREADS,
        rows,
        [
            *(each for folder in folders for each in identity.identity(folder, denoisers)),
            Identity("rendered letters", identity.FREE, identity.changes(clean_pages(), denoisers)),
        ],
        {
            folder.name: {
                each.denoiser.name: seams.seams(each, folder.pairs(corruption)) for each in (*beside, subject)
            }
            for folder in folders
            for corruption in folder.corruptions([seams.CORRUPTION])
        },
        legibility.legibility(denoisers),
    )


def write(
    findings: Findings, folders: Sequence[Folder], denoisers: Sequence[Denoiser], out: Path
) -> list[Path]:
    """Write table.md, table.json, sheet.png and, where sigma 25 was measured, frontier.png and .svg."""
    out.mkdir(parents=True, exist_ok=True)
    family = [findings.model, *findings.beside]
    files = [out / "table.md", out / "table.json"]
    files[0].write_text(as_text(findings), "utf-8")
    files[1].write_text(json.dumps(dataclasses.asdict(findings), indent=1) + "\n", "utf-8")
    if points := frontier.points(findings.rows):
        figure = frontier.frontier(points, family, findings.threads)
        files += save(figure, out / "frontier")
    if found := strips(folders, findings.rows, denoisers, family):
        files.append(out / "sheet.png")
        sheet(found).savefig(files[-1], dpi=110, bbox_inches="tight")
    return files


def as_text(findings: Findings) -> str:
    """The page a person reads, Markdown."""
    return _PAGE.format(
        model=findings.model,
        sha256=findings.sha256,
        threads=findings.threads,
        rows=tables.as_table(findings.rows, findings.model),
        asked=identity.ASKED,
        identity=identity.as_table(findings.identity),
        seams=seams.as_table(findings.seams),
        characters=findings.legibility[0].characters,
        legibility=legibility.as_table(findings.legibility, findings.model),
    )


_PAGE = """# {model}

Graph {sha256}. Everything ran on the same images in one run, with {threads} thread(s) where it can use them.

## Noise

PSNR in dB / SSIM, means; noise is seeded by an image's place in its folder and clipped to 8 bits. Gray
images are three equal channels. SSIM is scikit-image's default: even windows of 7x7 pixels, a mean over
colours. A dash: no answer for some of the images, as where a peer must be told a noise that nobody knows.

{rows}

## Clean images

What comes back of images without added noise, beside what went in. A photograph's own noise counts as loss;
halved, it has half as much; rendered letters have none, and of each such image we ask for {asked:g} dB.
Shifts and pattern in levels of 255.

{identity}

## Tiles

Quarters with the overlap of the card, beside the whole image.

{seams}

## Letters

Percent of the {characters} characters rendered on a page that template matching recognises: after Otsu's
threshold / by correlation with the gray levels. What the second loses, the denoiser has destroyed.

{legibility}
"""
