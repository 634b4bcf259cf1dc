"""gradus.torch over parameters of a device. There is none here, so the tensors only say that they are on one."""

from __future__ import annotations

import copy
from typing import Any

import gradus
import numpy as np
import pytest
from elsewhere import content, moved
from support import refused

torch = pytest.importorskip("torch")
import gradus.torch as drop_in  # noqa: E402


class Shown:
    """A tensor as DLPack would show it on a device."""

    def __init__(self, tensor: Any):
        self.tensor = tensor

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> Any:
        return moved(torch.utils.dlpack.to_dlpack(self.tensor), 0)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


class Elsewhere:
    __dlpack_c_exchange_api__ = None

    @property
    def device(self) -> Any:
        return torch.device("cuda", 0)

    def detach(self) -> Any:
        return Shown(self.on_host())

    def on_host(self) -> Any:
        return self.as_subclass(torch.Tensor).detach()  # type: ignore[attr-defined]


class Gradient(Elsewhere, torch.Tensor):
    pass


class Parameter(Elsewhere, torch.nn.Parameter):
    _gradient: Any = None

    @property
    def grad(self) -> Any:  # type: ignore[override]
        return self._gradient

    @grad.setter
    def grad(self, value: Any) -> None:
        self._gradient = None if value is None else value.as_subclass(Gradient)


class Stream:
    now = 5
    captured = False


@pytest.fixture(autouse=True)
def a_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What PyTorch does where it has CUDA."""
    Stream.now, Stream.captured = 5, False
    monkeypatch.setattr(drop_in, "_current_stream", lambda device: Stream.now)
    monkeypatch.setattr(drop_in, "_is_captured", lambda: Stream.captured)
    monkeypatch.setattr(drop_in, "_tensor_of", tensor_of)
    monkeypatch.setattr(torch.optim.Optimizer, "_process_value_according_to_param_policy", staticmethod(lambda param, value, *_, **__: value))


def tensor_of(slot: Any) -> Any:
    """A view of a slot."""
    if not isinstance(slot, gradus.DeviceArray):
        return torch.from_numpy(slot)
    import ctypes

    shown = slot.__cuda_array_interface__
    kind: Any = ctypes.c_double if shown["typestr"] == "<f8" else ctypes.c_float
    flat = np.ctypeslib.as_array((kind * int(np.prod(shown["shape"]))).from_address(shown["data"][0]))
    assert np.array_equal(content(slot).ravel(), flat)
    return torch.from_numpy(flat).view(shown["shape"])


def parameters(dtype: Any = torch.float32, seed: int = 1) -> list[Any]:
    torch.manual_seed(seed)
    return [Parameter(torch.randn(n, dtype=torch.float64).to(dtype)) for n in ((30, 5), (7,), (4097,))]


def gradients(t: int, p: Any) -> Any:
    generator = torch.Generator().manual_seed(t)
    return torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.on_host().dtype)


def train(ps: list[Any], optimizer: Any, start: int, end: int) -> None:
    for t in range(start, end):
        for p in ps:
            p.grad = gradients(t, p)
        optimizer.step()


def assert_same_bits(a: list[Any], b: list[Any]) -> None:
    for p, q in zip(a, b):
        assert torch.equal(p.on_host(), q.on_host())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_steps_have_the_bits_of_gradus(dtype: Any) -> None:
    ps, twins = parameters(dtype), parameters(dtype)
    optimizer = drop_in.AdamS(ps, lr=0.01, max_grad_norm=0.1)
    plain = gradus.Optimizer("adams", lr=0.01)
    memory = [torch.zeros_like(p.on_host()) for p in twins]
    for k, (p, g) in enumerate(zip(twins, memory)):
        plain.add(str(k), Shown(p.on_host()), Shown(g))
    for t in range(10):
        train(ps, optimizer, t, t + 1)
        for p, g in zip(twins, memory):
            g.copy_(gradients(t, p))
        plain.step(max_grad_norm=0.1)
    assert_same_bits(ps, twins)
    assert repr(optimizer.report) == repr(plain.report())
    assert optimizer.state[ps[0]]["exp_avg"].shape == ps[0].shape and optimizer.state[ps[0]]["step"] == 10


def test_steps_follow_the_current_stream() -> None:
    ps = parameters()
    optimizer = drop_in.AdamW(ps)
    assert optimizer.report is None
    train(ps, optimizer, 0, 1)
    ((_, native),) = optimizer._on_cuda
    assert native.stream == 5
    Stream.now = 9
    train(ps, optimizer, 1, 2)
    assert native.stream == 9 and optimizer.report.applied


def test_state_dicts_and_copies() -> None:
    whole, stopped, resumed = parameters(), parameters(), parameters(seed=2)
    train(whole, drop_in.NAdam(whole), 0, 20)
    optimizer = drop_in.NAdam(stopped)
    train(stopped, optimizer, 0, 11)
    for p, q in zip(stopped, resumed):
        q.on_host().copy_(p.on_host())
    again = drop_in.NAdam(resumed)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(resumed, again, 11, 20)
    assert_same_bits(whole, resumed)


def test_a_captured_step_needs_the_memory_of_the_step_before() -> None:
    ps = parameters()
    optimizer = drop_in.SGD(ps, lr=0.1)
    for p in ps:
        p.grad = gradients(0, p)
    Stream.captured = True
    with refused("a parameter has its first gradient while a graph is captured; expected a step before the capture"):
        optimizer.step()
    Stream.captured = False
    optimizer.step()
    Stream.captured = True
    optimizer.step()
    ps[1].grad = gradients(0, ps[1])
    with refused("parameter 1 or its gradient has other memory than in the step before, which a graph cannot capture; expected the same memory"):
        optimizer.step()
    Stream.captured = False
    optimizer.step()


def test_parameters_on_several_devices() -> None:
    def both(**options: Any) -> Any:
        a, b = Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
        optimizer = drop_in.AdamW([a, b], lr=0.1, **options)
        for t in range(3):
            a.grad, b.grad = torch.full((3,), 0.5), torch.full((3,), 0.5)
            optimizer.step()
        return a, b, optimizer

    a, b, optimizer = both()
    torch.testing.assert_close(a.on_host(), b.detach())
    assert optimizer.state[a]["step"] == optimizer.state[b]["step"] == 3
    with refused("expected one device, because max_grad_norm"):
        both(max_grad_norm=1.0)


def test_gradients_elsewhere_are_refused() -> None:
    p = Parameter(torch.ones(3))
    optimizer = drop_in.SGD([p], lr=0.1)
    p.grad = torch.ones(3)
    optimizer.step()
    p._gradient = torch.ones(3)
    with refused("on cpu; expected a dense one of torch.float32 and shape (3,) on cuda:0, as its parameter"):
        optimizer.step()
    with refused("is on meta; expected the CPU or CUDA"):
        drop_in.Adam([torch.nn.Parameter(torch.ones(3, device="meta"))])
