"""Too many or too large tensors of a program, by a size that was written into its file."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from celosia.frontend.export import load_exported
from celosia.frontend.sizes import MAX_PARTS
from celosia_spec.errors import CelosiaError

MODEL = "models/model.json"
WIDE = 37
"""A size that stands nowhere else in the networks here."""


class Splits(nn.Module):
    """A network that splits a constant of ``WIDE`` rows, as many times as it is told."""

    def __init__(self, split: Callable[[torch.Tensor], torch.Tensor], times: int = 1) -> None:
        super().__init__()
        self.layer, self.split, self.times = nn.Linear(8, 4), split, times
        self.register_buffer("b", torch.ones(1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        for _ in range(self.times):
            x = x + self.split(self.b.expand(WIDE, 4))
        return x


def without_gradient(rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return rows.unbind(0)[0]


SPLITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "unbind": lambda rows: rows.unbind(0)[0],
    "split": lambda rows: rows.split(1)[0],
    "chunk": lambda rows: rows.chunk(rows.shape[0])[0],
    "unbind in a region": without_gradient,
}


def saved(path: Path, model: nn.Module, rows: int) -> Path:
    """Save a network whose size ``WIDE`` is another one, written over it."""
    buffer = io.BytesIO()
    example = torch.zeros(1, 8)
    with torch.enable_grad():       # or there is no region without
        torch.export.save(torch.export.export(model.eval(), (example,)), buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(path, "w") as made:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith(MODEL):
                content = json.dumps(over(json.loads(content), rows)).encode()
            made.writestr(name, content)
    return path


def over(value: object, rows: int) -> object:
    if isinstance(value, dict):
        return {key: over(part, rows) for key, part in value.items()}
    if isinstance(value, list):
        return [over(part, rows) for part in value]
    return rows if value == WIDE and not isinstance(value, bool) else value


def refusal(path: Path) -> str:
    with pytest.raises(CelosiaError) as caught:
        load_exported(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", SPLITS)
def test_a_tensor_is_not_split_into_millions(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "net.pt2", Splits(SPLITS[name]), 1 << 22)
    assert f"split into more than {MAX_PARTS} parts" in refusal(path)


@pytest.mark.parametrize("name", SPLITS)
def test_parts_of_all_operators_count_together(tmp_path: Path, name: str) -> None:
    model = Splits(SPLITS[name], 3)
    load_exported(saved(tmp_path / "few.pt2", model, MAX_PARTS // 4))
    assert "parts up to here" in refusal(saved(tmp_path / "many.pt2", model, MAX_PARTS // 2))


def test_a_tensor_beyond_all_bounds_is_refused_as_the_file_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt2", Splits(lambda rows: rows.amax(0, keepdim=True)), 1 << 30)
    assert f"a tensor of {1 << 32} elements" in refusal(path)
