"""What a network's layers see and answer, and sums over it: float64, a mini-batch at a time.

The memory that the sums take does not depend on the number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from celosia.compress.criteria.follow import Follow, Use
from celosia.compress.criteria.registry import ACTIVATIONS
from celosia.compress.layers import evaluating
from celosia.compress.promise import running
from celosia_spec.errors import ArgumentError

__all__ = ["CrossMoments", "calibration_inputs", "observe", "patches"]


class CrossMoments:
    """Means, variances and covariances of B groups of variables a (O) and b (K), streamed.

    count    : samples so far.
    products : float64 (B, O, K), sums of the products of a's and b's deviations from their means.
    squares  : the same of each variable with itself, float64 (B, O) of a and (B, K) of b.

    All values are taken relative to the first sample, and mini-batches are merged by their means
    (Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979), so a mean that is large beside the spread costs no digits, and a variable
    that never changes has a square of exactly 0.
    """

    def __init__(self) -> None:
        self.count = 0

    def update(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Take a mini-batch: a (N, B, O) and b (N, B, K), N >= 1, of any floating type."""
        a, b = a.to(torch.float64), b.to(torch.float64)
        if self.count == 0:
            self._start(a[0], b[0])
        a, b = a - self._first[0], b - self._first[1]
        added, total = len(a), self.count + len(a)
        means = a.mean(0), b.mean(0)
        weight = (self.count * added / total) ** 0.5
        steps = [new - old for new, old in zip(means, self._means, strict=True)]
        # One row more holds what the merge adds: weight^2 times the product of the steps.
        a = torch.cat([a - means[0], weight * steps[0][None]])
        b = torch.cat([b - means[1], weight * steps[1][None]])
        self.products.baddbmm_(a.permute(1, 2, 0), b.permute(1, 0, 2))
        for squares, rows in zip(self.squares, (a, b), strict=True):
            squares += rows.square().sum(0)
        for mean, step in zip(self._means, steps, strict=True):
            mean += step * (added / total)
        self.count = total

    def correlation(self) -> torch.Tensor:
        """Return Pearson's r of each a with each b, float64 (B, O, K), in [-1, 1].

        It is 0 where a or b never changes. Needs at least one sample.
        """
        a, b = (torch.where(s > 0, s, torch.inf).sqrt() for s in self.squares)
        return (self.products / a[:, :, None] / b[:, None, :]).clamp_(-1, 1)

    def _start(self, a: torch.Tensor, b: torch.Tensor) -> None:
        self._first = a.clone(), b.clone()
        self._means = torch.zeros_like(a), torch.zeros_like(b)
        self.squares = torch.zeros_like(a), torch.zeros_like(b)
        self.products = a.new_zeros(a.shape[0], a.shape[1], b.shape[1])


def calibration_inputs(method: str, inputs: torch.Tensor | None, least: int) -> torch.Tensor:
    """Return the calibration inputs; ArgumentError if there are fewer than `least` samples."""
    count = 0 if inputs is None else len(inputs)
    if inputs is None or count < least:
        raise ArgumentError(
            f"method {method!r} needs calibration inputs, at least {least}, and got {count}; "
            "give inputs=, some hundred samples of the training set"
        )
    return inputs


def observe(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    inputs: torch.Tensor,
    use: Use,
    *,
    activation: str = "post",
    batch_size: int = 64,
) -> None:
    """Run a model and show each layer's input and answer, a mini-batch at a time.

    Parameters
    ----------
    model
        Runs in evaluation mode, without gradients, on the device of its first parameter; every
        module is left in the mode that it was in.
    layers
        Layers of the model to watch, by name.
    inputs
        (N, ...).
    use
        Called as ``use(name, layer, input, answer)`` each time that a layer runs. It must not
        keep the tensors: later operations in place may change them.
    activation
        What the answer is. "pre": the layer's output. "post": the result of the activation
        function that takes this output, directly or through a normalisation, a new shape or a
        max-pool (seen while the model runs, so it may be a module or a function). Where none does,
        as after the last layer or before the sum of a residual block, the neuron has the identity
        for activation function and the answer is the layer's output. A function of that output
        alone that is not known, such as the square, is refused: it may be one. So is an activation
        function that takes the output times two.
    batch_size
        Samples that the model gets at once.

    Raises
    ------
    ArgumentError
        Unknown `activation`, a model that does not run on the inputs, a layer that never runs, or
        one followed by an unknown function.
    """
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"activation must be one of {', '.join(ACTIVATIONS)}, "
                            f"not {activation!r}")
    parameter = next(model.parameters())
    follow = Follow(use, wait=activation == "post")
    handles = [
        layer.register_forward_hook(follow.hook(name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model), torch.no_grad():
            for batch in inputs.split(batch_size):
                kind = parameter.dtype if batch.is_floating_point() else batch.dtype
                with follow, running(batch):
                    model(batch.to(parameter.device, kind, copy=True))
                follow.finish()
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in layers if name not in follow.seen]
    if missing:
        raise ArgumentError(
            f"layer {', '.join(map(repr, missing))} never runs when the model does; leave it "
            "out with layers="
        )


def patches(layer: nn.Conv1d | nn.Conv2d, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return what chosen output positions of a convolution see of its input.

    Parameters
    ----------
    layer
        Gives kernel, stride, padding (of any mode), dilation and groups.
    x
        The layer's input, (N, C, H, W), or (N, C, L) of a line.
    positions
        int64 (P,): flat indices into the output map, row after row; or (N, P), other ones for
        each sample.

    Returns
    -------
    (N, P, groups, C / groups * kh * kw), the last axis in the order of the weight's axes but the
    first; of a line kh is 1.
    """
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x, _margins(layer), mode=mode)
    (kh, kw), (dy, dx), (sy, sx) = ((1, *size)[-2:] for size in (
        layer.kernel_size, layer.dilation, layer.stride))
    x = (x[:, :, None] if x.ndim == 3 else x).permute(0, 2, 3, 1).contiguous()
    width = (x.shape[2] - dx * (kw - 1) - 1) // sx + 1
    positions = positions.expand(len(x), positions.shape[-1]).to(x.device)
    rows = (positions // width * sy)[:, :, None] + dy * torch.arange(kh, device=x.device)
    columns = (positions % width * sx)[:, :, None] + dx * torch.arange(kw, device=x.device)
    sample = torch.arange(len(x), device=x.device)[:, None, None, None]
    seen = x[sample, rows[:, :, :, None], columns[:, :, None, :]]
    seen = seen.unflatten(-1, (layer.groups, -1)).permute(0, 1, 4, 5, 2, 3)
    return seen.flatten(3)


def _margins(layer: nn.Conv1d | nn.Conv2d) -> list[int]:
    """Return a convolution's padding: left, right, and of a map top, bottom."""
    if layer.padding == "valid":
        return [0] * 2 * len(layer.kernel_size)
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [part for total in reversed(totals) for part in (total // 2, total - total // 2)]
    return [part for margin in reversed(layer.padding) for part in (margin, margin)]
