"""What a training step needs beyond Keras' own operations, on PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Tensor = Any

IS_COMPILED = False
_SEEDS = 2**32


def take_rows(table: Any, idx: Tensor) -> Tensor:
    """Rows of a variable at positions (...); its gradient holds these rows alone."""
    return torch.nn.functional.embedding(idx.long(), table.value, sparse=True)


def differentiate(compute: Callable[[], tuple[Tensor, Any]], variables: list[Any]) -> tuple[Any, list[Any]]:
    """The gradients of what `compute` gives first, and what it gives beside it."""
    loss, beside = compute()
    return beside, list(torch.autograd.grad(loss, [variable.value for variable in variables]))


def rows_and_values(gradient: Any) -> tuple[Tensor, Tensor]:
    """The rows (r,) that a gradient touches, repeated as they come, and what it is there (r, ...)."""
    if gradient.is_sparse:
        return gradient._indices()[0], gradient._values()
    return torch.arange(len(gradient), device=gradient.device), gradient


def add_to_rows(variable: Any, rows: Tensor, values: Tensor) -> None:
    """Add to rows (r,) of a variable; those that come several times add up."""
    with torch.no_grad():
        variable.value.index_add_(0, rows, values)


def copy_values(variable: Any) -> Any:
    """The values of a variable of Keras as a NumPy array."""
    return variable.value.detach().cpu().numpy().copy()


def repeat(times: int, step: Callable[[int, Tensor], Tensor], state: Tensor) -> Tensor:
    """Steps numbered from 0, each given the state that the one before left."""
    for number in range(times):
        state = step(number, state)
    return state


def draw_uniform(shape: Any, seed: int, step: Tensor) -> Tensor:
    """Numbers from 0 to below 1, a pure function of seed and step."""
    generator = _generator(seed, step)
    return torch.rand(_sizes(shape), generator=generator, device=generator.device)


def draw_integers(shape: Any, seed: int, step: Tensor, below: int) -> Tensor:
    """Whole numbers from 0 on, int32, a pure function of seed and step."""
    generator = _generator(seed, step)
    return torch.randint(0, below, _sizes(shape), generator=generator, dtype=torch.int32, device=generator.device)


def _generator(seed: int, step: Tensor) -> torch.Generator:
    value = step.value if hasattr(step, "value") else step  # of Keras' variables
    return torch.Generator(value.device).manual_seed((seed % _SEEDS) * _SEEDS // 2 + int(value))


def _sizes(shape: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)
