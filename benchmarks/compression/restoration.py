"""Tucker-2 and SVD on networks that mend pictures: DnCNN (noise) and VDSR (resolution).

PSNR of the given networks, right after their convolutions of 64 to 64 channels are decomposed,
and after a short fine-tuning in the decomposed structure. What is finished is kept in
build/compression/restoration; a run that was stopped goes on after it.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import torch
from harness.command import main
from harness.pictures import given_dncnn, given_vdsr
from harness.result import Check, Result, Table
from mending import Denoiser, blurred_patches, blurred_set5, noisy_pictures, patches, psnr
from torch import nn

from celosia.compress.cost import measure
from celosia.compress.lowrank.factorise import factorise
from celosia.compress.training.finetune import FineTune
from celosia_spec.files import replacing

KEPT = Path("build") / "compression" / "restoration"
SCALES = (2, 3, 4)
REMOVED = 0.855
"""Share of the parameters to remove, within P4's 85 to 88 %."""

PATCHES = {"DnCNN 25": 20_000, "VDSR": 20_000, "DnCNN 15": 8_000, "DnCNN 50": 8_000}
"""Squares of train400 that a network is fine-tuned on, each seen once."""

DENOISER_RATE, SHARPENER_RATE = 1e-3, 3e-4
"""Peak learning rates. VDSR has no batch normalisation: at 0.001 it unlearns its residual."""

PUBLISHED = {"DnCNN 15": {"Set12": 32.859}, "DnCNN 25": {"Set12": 30.436, "BSD68": 29.23},
             "DnCNN 50": {"Set12": 27.178},
             "VDSR": {"Set5 x2": 37.53, "Set5 x3": 33.66, "Set5 x4": 31.35}}
"""dB: Zhang et al., IEEE TIP 26(7), 2017, and Kim et al., CVPR 2016."""

TOLERANCE = 0.15
"""dB between those and the given weights, which others have trained."""

TUNED: dict[str, dict[str, Any]] = {
    "Tucker-2": {"method": "tucker", "rule": "evbmf", "parameters_removed": REMOVED},
    "SVD": {"method": "svd", "scheme": "channel", "parameters_removed": REMOVED},
}
NOT_TUNED: dict[str, dict[str, Any]] = {
    "Tucker-2, EVBMF's own ranks": {"method": "tucker", "rule": "evbmf"},
    "Tucker-2, ranks 16": {"method": "tucker", "ranks": 16},
    "Tucker-2, ranks 18": {"method": "tucker", "ranks": 18},
}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A given network: how it is made, judged and fine-tuned.

    layers  : names of the convolutions to decompose.   side : of the squares it is trained on.
    quality : model -> {name of a test set: dB}.   nothing : a model that changes nothing.
    tune    : (model, squares) -> None.
    """

    name: str
    make: Callable[[], nn.Module]
    layers: list[str]
    side: int
    quality: Callable[[nn.Module], dict[str, float]]
    tune: Callable[[nn.Module, int], None]
    nothing: Callable[[], nn.Module]

    @property
    def example(self) -> torch.Tensor:
        return torch.zeros(1, 1, self.side, self.side)


def denoiser(sigma: int, limit: int | None) -> Case:
    """Return DnCNN at a noise level, on Set12, and for 25 on BSD68 too."""
    sets = {"Set12": "set12"} | ({"BSD68": "bsd68"} if sigma == 25 else {})

    def quality(model: nn.Module) -> dict[str, float]:
        return {title: psnr(Denoiser(model), noisy_pictures(name, sigma, limit))
                for title, name in sets.items()}

    def add_noise(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return batch + sigma / 255 * torch.randn(batch.shape, generator=generator)

    def tune(model: nn.Module, count: int) -> None:
        clean = patches(count, 40, seed=sigma)
        finetune(Denoiser(model), clean, clean, DENOISER_RATE, add_noise)

    return Case(name=f"DnCNN {sigma}", make=partial(given_dncnn, sigma), side=40, quality=quality,
                layers=[f"dncnn.{index}" for index in range(2, 47, 3)], tune=tune,
                nothing=Zero)


def sharpener(limit: int | None) -> Case:
    """Return VDSR on Set5 at three scales."""

    def quality(model: nn.Module) -> dict[str, float]:
        return {f"Set5 x{scale}": psnr(model, blurred_set5(scale, limit), shave=scale)
                for scale in SCALES}

    def tune(model: nn.Module, count: int) -> None:
        finetune(model, *blurred_patches(count, 41, SCALES, seed=0), SHARPENER_RATE)

    return Case(name="VDSR", make=given_vdsr, side=41, quality=quality, tune=tune,
                layers=[f"residual_layer.{index}.conv" for index in range(18)],
                nothing=nn.Identity)


class Zero(nn.Module):
    """Predicts no noise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def finetune(
    model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, rate: float,
    augment: Any = None,
) -> None:  # fmt: skip
    """Train on every square once, in batches of 16, against the true pictures."""
    model.to(memory_format=torch.channels_last)
    FineTune(inputs=inputs, labels=targets, batch_size=16, learning_rate=rate,
             weight_decay=0.0, augment=augment,
             loss=nn.functional.mse_loss, on_epoch=lambda *found: tell(f"error {found[2]:.3g}"),
             )(model, 0)


def tell(what: str) -> None:
    """Show what was found, at once, on stderr."""
    print(what, file=sys.stderr, flush=True)


def once(name: str, find: Callable[[], Row]) -> Row:
    """Return what an earlier run has found under a name, or find it and keep it."""
    path = KEPT / f"{name}.json"
    if not path.exists():
        found = find()
        KEPT.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(json.dumps(found, indent=1).encode())
        tell(f"{name}: {found}")
    return json.loads(path.read_text())


def rows_of(case: Case, count: int, limit: int | None) -> list[Row]:
    """Return one row for the dense network and one for each decomposition."""
    settings = {"dense": None, **NOT_TUNED, **TUNED}
    unmended = once(f"{case.name}, unmended, {limit}", lambda: case.quality(case.nothing()))
    rows = [once(f"{case.name}, {title}, {limit}", partial(decomposed, case, chosen))
            | {"network": title} for title, chosen in settings.items()]
    for row in rows[-len(TUNED):]:
        title = row["network"]
        name = f"{case.name}, {title}, {limit}, {count}"
        row |= once(name, partial(tuned, case, title, count))
    for row in rows:
        row |= {"case": case.name, "unmended": unmended}
    return rows


def decomposed(case: Case, settings: dict[str, Any] | None) -> Row:
    """Return costs and quality of a network, right after the decomposition that is told."""
    model, ranks = case.make(), ""
    dense = measure(model, case.example)
    if settings is not None:
        report = factorise(model, case.example, **full(case, settings))
        ranks = span([row.ranks for row in report.layers.values() if row.ranks is not None])
    cost = measure(model, case.example)
    return {"ranks": ranks, "parameters": cost.parameters, "macs": cost.macs,
            "density": cost.density, "bytes": cost.weight_bytes,
            "compression": dense.dense_bytes / cost.weight_bytes,
            "fewer parameters": 1 - cost.parameters / dense.parameters,
            "fewer macs": 1 - cost.macs / dense.macs, "dB": case.quality(model)}


def span(ranks: list[tuple[int, ...]]) -> str:
    """Return the range of each rank over the layers, such as "8 to 12 x 8 to 15"."""
    ends = [(min(column), max(column)) for column in zip(*ranks, strict=True)]
    return " x ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in ends)


def tuned(case: Case, title: str, count: int) -> Row:
    """Return the quality after fine-tuning; the tuned network is kept."""
    model = case.make()
    report = factorise(model, case.example, **full(case, TUNED[title]),
                       finetune=lambda model, _: case.tune(model, count),
                       checkpoint=KEPT / f"{case.name}, {title}, {count}")
    return {"tuned": case.quality(model), "seconds": report.rounds[0].seconds}


def full(case: Case, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `factorise` for the layers of a case."""
    if "ranks" in settings:
        return settings | {"ranks": dict.fromkeys(case.layers, settings["ranks"])}
    return settings | {"layers": case.layers}


def experiments(arguments: argparse.Namespace) -> Result:
    """Measure all networks."""
    cases = [denoiser(25, arguments.images), sharpener(arguments.images),
             denoiser(15, arguments.images), denoiser(50, arguments.images)]
    rows = [row for case in cases
            for row in rows_of(case, round(arguments.share * PATCHES[case.name]), arguments.images)]
    notes = (
        "Decomposed are the 15 (DnCNN) and 18 (VDSR) convolutions of 64 to 64 channels. Tucker-2 "
        f"has EVBMF's ranks, at least 8, scaled by one factor to {REMOVED:.1%} fewer parameters; "
        "SVD (scheme channel) one rank for all layers.",
        "Fine-tuned once through squares of train400, "
        + ", ".join(f"{round(arguments.share * count):,} for {name}"
                    for name, count in PATCHES.items())
        + " (40 x 40, or 41 x 41 for VDSR), against the true pictures, AdamW, peak learning rate "
        f"{DENOISER_RATE:g} (VDSR {SHARPENER_RATE:g}), batches of 16; CPU time forces this, P4 "
        "trains 10 epochs of the original schedule.",
        "DnCNN: Gaussian noise, seeded by the picture's position; new noise for each square. VDSR: "
        "bicubic by Pillow on floats, luma, border of the scale's width not counted; one network "
        "for the three scales.",
        "Multiply-accumulates are for one square of 40 x 40 (VDSR: 41 x 41). Weight bytes are in "
        "the machine's sparse format, compared with the dense network as float32.",
    )
    return Result(title="Low-rank restoration networks", tables=(costs(rows), quality(rows)),
                  checks=tuple(checks(rows)), notes=notes)


def costs(rows: list[Row]) -> Table:
    """Return what the networks cost."""
    columns = {"network": "", "decomposition": "", "ranks": "", "parameters": ",d", "fewer": ".1%",
               "MACs": ",d", "fewer MACs": ".1%", "density": ".1%", "weight bytes": ",d",
               "compression": ".2f"}
    return Table.of("Costs", columns, [
        [row["case"], row["network"], row["ranks"], row["parameters"], row["fewer parameters"],
         row["macs"], row["fewer macs"], row["density"], row["bytes"], row["compression"]]
        for row in rows])


def quality(rows: list[Row]) -> Table:
    """Return the PSNR of the networks."""
    columns = {"network": "", "decomposition": "", "pictures": "", "input": ".2f",
               "published": ".2f", "right after": ".2f", "fine-tuned": ".2f", "lost": ".2f",
               "seconds": ".0f"}
    cells = []
    for row in rows:
        dense = next(other for other in rows if other["case"] == row["case"])
        for name, value in row["dB"].items():
            tuned = row.get("tuned", {}).get(name)
            last = value if tuned is None else tuned
            cells.append([row["case"], row["network"], name, row["unmended"][name],
                          PUBLISHED[row["case"]][name] if row is dense else None, value, tuned,
                          None if row is dense else dense["dB"][name] - last, row.get("seconds")])
    return Table.of("PSNR in dB", columns, cells)


def checks(rows: list[Row]) -> list[Check]:
    """Return the requirements: the given networks are the published ones, and 85 % goes."""
    found = []
    for row in rows:
        if row["network"] == "dense":
            found += [Check.at_most(f"{row['case']}, {name}: dB from the published figure",
                                    abs(row["dB"][name] - wanted), TOLERANCE, ".3f")
                      for name, wanted in PUBLISHED[row["case"]].items()]
        elif "tuned" in row:
            found += [Check.at_least(f"{row['case']}, {row['network']}: {what}", row[what], 0.85,
                                     ".1%") for what in ("fewer parameters", "fewer macs")]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(experiments, __doc__,
         ("--images", {"type": int, "default": None, "help": "at most, of each set (all)"}),
         ("--share", {"type": float, "default": 1.0,
                      "help": "of the squares to fine-tune on (%(default)s)"}))
