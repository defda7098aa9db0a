"""What `run` shows of a network's answers, on a terminal and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.cells import cell_len

from celosia import answers
from celosia.cli.common import show, table, wrapped
from celosia.cli.tables import width
from celosia.program import Program
from celosia.results import RunResult
from celosia.samples import Samples
from celosia.show import count, span
from celosia_spec.errors import quoted
from celosia_spec.outputs import Output

BEST = 5
"""Classes that are shown of an answer."""
_WHOLE, _LINES = 3, 10
"""So many inputs get a line for each class, so many a line; the others are counted."""
_MATRIX, _PAIRS = 10, 10
"""Most classes of a confusion table, and most pairs where there are more."""


def as_json(program: Program, samples: Samples, result: RunResult, outputs: Sequence[Output],
            labels: Sequence[str]) -> dict[str, Any]:
    """Return answers, accuracy and confusions; of maps statistics. Of several outputs these are
    under their names."""
    found: dict[str, Any] = {"names": list(samples.names), "answers": None, "map": None,
                             "outputs": None, "accuracy": None, "confusions": None}
    told = {output.name: _told(program, result, output, labels) for output in outputs}
    found |= told[outputs[0].name] if len(told) == 1 else {"outputs": told}
    if samples.truth is not None:
        evaluation = _evaluated(program, samples, result, outputs[0])
        found["accuracy"] = evaluation.accuracy
        found["confusions"] = [{"true": true, "answer": answer, "inputs": count}
                               for true, answer, count in evaluation.confusions]
    return found


def show_answers(program: Program, samples: Samples, result: RunResult, outputs: Sequence[Output],
                 labels: Sequence[str]) -> None:
    """Print the best classes of the first inputs, or the statistics of maps, for each of the
    outputs; then accuracy and confusions where the true classes are known, of the only one."""
    for output in outputs:
        if len(outputs) > 1:
            print(f"{output.name}:")
        names = answers.labels_of(program, output, labels)
        told = _told(program, result, output, labels)
        if told["map"] is not None:
            _show_map(told["map"])
        else:
            _show_classes(samples, told["answers"], names)
    if samples.truth is not None:
        _show_evaluation(_evaluated(program, samples, result, outputs[0]),
                         outputs[0].scoring.classes, labels)


def stored_json(result: RunResult) -> dict[str, Any] | None:
    """Return the shape of every stored tensor that was asked for, its exponents, and what its
    values come to; None where none was."""
    return {name: {"shape": list(tensor.values.shape[1:]), "exponents": tensor.exponent.tolist(),
                   **asdict(answers.statistics(tensor.values)),
                   "zeros": float(np.mean(tensor.mantissa == 0))}
            for name, tensor in result.tensors.items()} or None


def show_stored(result: RunResult) -> None:
    """Print the same, a line a tensor."""
    if (told := stored_json(result)) is None:
        return
    shown = table("stored tensors, over all inputs", "layer", "shape", "exponents", "least", "mean",
                  "largest", "zeros", words=2)
    for name, entry in told.items():
        shown.add_row(name, " x ".join(map(str, entry["shape"])), span(entry["exponents"]),
                      *_figures(entry), f"{entry['zeros']:.1%}")
    show(shown)


def _evaluated(program: Program, samples: Samples, result: RunResult,
               output: Output) -> answers.Evaluation:
    assert samples.truth is not None
    return answers.evaluate(answers.chosen(program, result, output.name), samples.truth)


def _told(program: Program, result: RunResult, output: Output,
          labels: Sequence[str]) -> dict[str, Any]:
    """Return an output's answers, or of maps what they come to."""
    names = answers.labels_of(program, output, labels)
    if not answers.tells_classes(output) and math.prod(output.scoring.shape) > 1:
        return {"answers": None, "map": _map(result.answers[output.name], output, names)}
    return {"answers": _answers(program, result, output, names), "map": None}


def _answers(program: Program, result: RunResult, output: Output,
             labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return each input's answer: its class and the best with their scores, or its one number."""
    def named(number: int) -> dict[str, Any]:
        return {"class": number, "name": labels[number] if labels else None}

    scores = answers.scores(program, result, output.name)
    classes = (answers.chosen(program, result, output.name).tolist()
               if answers.tells_classes(output) else [])
    if scores.shape[1] == 1:
        values = [{"value": value} for value in scores[:, 0].tolist()]
        return [named(number) | value for number, value in zip(classes, values, strict=True)
                ] if classes else values
    return [named(order[0]) | {"best": [named(number) | {"value": float(row[number])}
                                        for number in order]}
            for row, order in zip(scores, answers.best(scores, BEST).tolist(), strict=True)]


def _show_classes(samples: Samples, found: list[dict[str, Any]], labels: Sequence[str]) -> None:
    shown = len(found) if len(found) <= _LINES else _LINES if samples.truth is None else _WHOLE
    for at, answer in enumerate(found[:shown]):
        title = quoted(samples.names[at]) if samples.names else f"input {at}"
        if samples.truth is not None:
            title += f", truly {_name(int(samples.truth[at]), labels)}"
        if "value" in answer:
            named = f"{_name(answer['class'], labels)}, " if "class" in answer else ""
            print(wrapped(f"{title}: {named}{answer['value']:.4g}", "    "))
        elif len(found) <= _WHOLE:
            print(wrapped(title, "    "))
            for entry in answer["best"]:
                name = _name(entry["class"], labels)
                print(wrapped(f"    {entry['value']:>10.4g}  {name}", " " * 16))
        else:
            best = ", ".join(f"{_name(entry['class'], labels)} {entry['value']:.4g}"
                             for entry in answer["best"])
            print(wrapped(f"{title}: {best}", "    "))
    if len(found) > shown:
        print(f"and {count(len(found) - shown, 'input')} more; --json has all")


def _name(number: int, labels: Sequence[str]) -> str:
    return labels[number] if number < len(labels) else f"class {number}"


def _map(answer: np.ndarray, output: Output, labels: Sequence[str]) -> dict[str, Any]:
    """Return the shape of an answer that is a map, and what its elements come to."""
    found: dict[str, Any] = {"shape": list(answer.shape[1:]),
                             **asdict(answers.statistics(answer)), "channels": [], "classes": []}
    if answer.dtype == np.int64:
        counts = np.bincount(answer.reshape(-1), minlength=output.scoring.classes)
        found["classes"] = [
            {"class": number, "name": labels[number] if labels else None,
             "share": int(count) / answer.size} for number, count in enumerate(counts.tolist())]
    elif answer.ndim == 4:
        found["channels"] = [
            {"name": labels[channel] if labels and output.scoring.axis == 0 else None,
             **asdict(answers.statistics(answer[:, channel]))}
            for channel in range(answer.shape[1])]
    return found


def _show_map(found: dict[str, Any]) -> None:
    shape = " x ".join(map(str, found["shape"]))
    if found["classes"]:
        print(f"maps of {shape}; share of each class:")
        shown = table("", "class", "share")
        for entry in found["classes"]:
            shown.add_row(entry["name"] or str(entry["class"]), f"{entry['share']:.2%}")
    else:
        print(f"maps of {shape}; over all inputs:")
        shown = table("", "channel", "least", "mean", "largest")
        rows = found["channels"] if 1 < len(found["channels"]) <= 32 else []
        for number, entry in enumerate(rows):
            shown.add_row(entry["name"] or str(number), *_figures(entry))
        shown.add_row("all", *_figures(found))
    show(shown)


def _figures(entry: dict[str, Any]) -> list[str]:
    return [f"{entry[name]:.4g}" for name in ("min", "mean", "max")]


def _show_evaluation(found: answers.Evaluation, classes: int, labels: Sequence[str]) -> None:
    right = sum(times for (true, answer), times in found.counts.items() if true == answer)
    inputs = sum(found.counts.values())
    print(f"accuracy {found.accuracy:.2%}: {right:,} of {count(inputs, 'input')}")
    if not found.confusions or inputs == 1:
        return
    lines = _matrix(found, classes, labels) if classes <= _MATRIX else []
    if lines and max(map(cell_len, lines)) <= width():
        print("true class by row, answer by column:")
        print("\n".join(lines))
        return
    print("most often taken for another class:")
    for true, answer, times in found.confusions[:_PAIRS]:
        of = sum(n for (own, _), n in found.counts.items() if own == true)
        print(wrapped(f"{times:>6,} of {of:,}  {_name(true, labels)} for {_name(answer, labels)}",
                      " " * 8))
    if len(found.confusions) > _PAIRS:
        print(f"and {len(found.confusions) - _PAIRS:,} pairs more; --json has all")


def _matrix(found: answers.Evaluation, classes: int, labels: Sequence[str]) -> list[str]:
    """Return the lines of a confusion table."""
    cells = [[f"{found.counts.get((true, answer), 0):,}" for answer in range(classes)]
             for true in range(classes)]
    wide = max(len(cell) for row in cells for cell in row) + 1
    heads = [f"{true} {labels[true]}" if labels else str(true) for true in range(classes)]
    long = max(map(cell_len, heads))
    numbers = "".join(f"{answer:>{wide}}" for answer in range(classes))
    return [" " * long + numbers] + [
        head + " " * (long - cell_len(head)) + "".join(f"{cell:>{wide}}" for cell in row)
        for head, row in zip(heads, cells, strict=True)]
