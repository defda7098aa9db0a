"""Networks that do not fit: what the message names is taken, and compiles."""

import re

import numpy as np
import pytest

import celosia
from celosia import ways_out
from celosia.compiler import Compiler
from celosia_spec.errors import CelosiaError, CompileError, FitError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.b(torch.relu(self.a(x))) + x))


def large_bias(bias: float) -> nn.Module:
    """Biases for which 24-bit accumulators have no room beside such weights."""
    model = nn.Linear(16, 4)
    nn.init.constant_(model.weight, 1e-4)
    nn.init.constant_(model.bias, bias)
    return model


CASES = {       # model, input, settings; the remedy
    "another board": (Sum, (1, 16), {"target": "hx8k"}, "compile it for icebreaker"),
    "fewer lanes": (lambda: large_bias(60000), (1, 16), {},
                    "use 8 lanes or compile it for hx8k-b-evn"),
    "sparse": (lambda: sparse(nn.Linear(784, 130), 0.8), (1, 784),
               {"target": "ecp5-25f", "sparse": False},
               "leave the zeros out (sparse) or compile it for icebreaker"),
    "pruned": (lambda: nn.Linear(3000, 40), (1, 3000), {"target": "hx8k"}, None),
    "flash": (lambda: nn.Sequential(*(nn.Linear(250, 250) for _ in range(4))), (1, 250),
              {"target": "upduino"}, "compile it for icebreaker"),
    "narrower": (lambda: large_bias(4000), (1, 16), {},
                 "use weight_bits=6 or compile it for hx8k-b-evn"),
}


def sparse(layer: nn.Module, share: float) -> nn.Module:
    prune.l1_unstructured(layer, "weight", share)
    prune.remove(layer, "weight")
    return layer


def taken(remedy: str, model: nn.Module, settings: dict) -> tuple[nn.Module, dict]:
    """Return the model and the settings with one way out taken, as a reader would."""
    settings = dict(settings)
    if found := re.search(r"compile it for ([\w-]+)", remedy):
        settings |= {"target": found[1], "lanes": None}
    if found := re.search(r"(\d+) lanes", remedy):
        settings["lanes"] = int(found[1])
    if "leave the zeros out" in remedy:
        settings["sparse"] = True
    if found := re.search(r"weight_bits=(\d)", remedy):
        settings["weight_bits"] = int(found[1])
    if found := re.search(r"the largest (\d+)% of each layer's weights", remedy):
        for layer in model.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                sparse(layer, 1 - int(found[1]) / 100)
    return model, settings


@pytest.mark.parametrize("name", CASES)
def test_the_way_out_leads_out(name: str) -> None:
    torch.manual_seed(1)
    make, shape, settings, wanted = CASES[name]
    x = np.random.default_rng(2).normal(size=(4, *shape[1:])).astype(np.float32)
    model = make().eval()
    with pytest.raises(FitError) as caught:
        celosia.compile(model, x[:1], **settings)
    remedy = caught.value.remedy
    assert "tried in vain" not in remedy
    assert wanted is None or remedy == wanted
    for way in remedy.split(" or "):
        changed, others = taken(way, make().eval(), settings)
        assert (others != settings) or "prune" in way
        program = celosia.compile(changed, x[:1], calibration=x, **others)
        assert celosia.run(program, x).values.shape[0] == 4


def test_where_nothing_helps_it_says_what_was_tried() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(FitError, match=(
            r"^0 \(average\): what one line of its outputs reads takes 628 rows of the banks, .*; "
            r"tried in vain: 8, 16, 32 lanes, every other target, pruning to 5%$")):
        celosia.compile(model, np.zeros((1, 3, 100, 100), np.float32), target="ulx3s-85f")


def test_trials_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways_out, "SECONDS", -1.0)
    with pytest.raises(FitError, match=r"leave the addition out \[test_ways_out"):
        celosia.compile(Sum(), np.zeros((1, 16), np.float32), target="hx8k")


def test_a_refusal_that_no_setting_helps_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways_out.Trials, "_first", lambda *_: pytest.fail("tried"))
    with pytest.raises(CompileError, match="replace it with ReLU"):
        celosia.compile(nn.Sequential(nn.Linear(4, 4), nn.Hardshrink(), nn.Linear(4, 4)),
                        np.zeros((1, 4), np.float32))


def test_the_line_stands_beside_what_does_not_fit() -> None:
    with pytest.raises(FitError) as caught:
        celosia.compile(Sum(), np.zeros((1, 16), np.float32), target="hx8k")
    assert caught.value.source.startswith("test_ways_out.py:")
    assert caught.value.source.endswith("return self.fc(torch.relu(self.b(torch.relu(self.a(x))) "
                                        "+ x))")


@pytest.mark.parametrize(("settings", "message"), [
    ({"target": "virtex"}, "unknown target 'virtex'"),
    ({"target": None}, "unknown target None"), ({"target": ["hx8k"]}, "unknown target ['hx8k'];"),
    ({"exponents": "both"}, "exponents must be 'dynamic' or 'static', not 'both'"),
    ({"weight_bits": 3}, "weight_bits must be 4 to 8, not 3"),
    ({"weight_bits": 8.0}, "weight_bits must be 4 to 8, not 8.0"),
    ({"weight_bits": np.int8(3)}, "weight_bits must be 4 to 8, not 3"),
    ({"activation_bits": "8"}, "activation_bits must be 4 to 9, not '8'"),
    ({"lanes": 16.0}, "lanes must be a whole number, not 16.0"),
    ({"activation_bits": 10}, "activation_bits must be 4 to 9, not 10"),
    ({"lanes": 5}, "lanes must be 8, 16, 32, 64 or 128, not 5"),
    ({"lanes": 64}, "icebreaker: 64 lanes need 32 of its 8 multiplier blocks; use lanes=16 or"),
    ({"dump_after": "nonsense"}, "dump_after must be 'all' or one of"),
    ({"calibration": [[float("nan")]]}, "calibration: element"),
])
def test_settings_are_checked_before_the_model_is_read(
    monkeypatch: pytest.MonkeyPatch, settings: dict, message: str
) -> None:
    monkeypatch.setattr("celosia.frontend.import_model", lambda *_: pytest.fail("too late"))
    with pytest.raises(CelosiaError, match=re.escape(message)):
        celosia.compile("missing.pt2", None, **settings)


def test_settings_may_be_of_any_whole_type() -> None:
    compiler = Compiler(weight_bits=np.int64(8), activation_bits=np.uint8(8), lanes=np.int16(16))
    compiler.check(calibrated=False)
    assert {type(value) for value in (compiler.weight_bits, compiler.activation_bits,
                                      compiler.lanes)} == {int}


def test_settings_are_those_of_compile() -> None:
    import inspect

    parameters = inspect.signature(celosia.compile).parameters
    settings = Compiler().arguments
    assert {name: parameters[name].default for name in settings} == settings
    assert settings.keys() | {"unsigned_input", "clipped", "larger_input"} == (
        Compiler.__dataclass_fields__.keys())
