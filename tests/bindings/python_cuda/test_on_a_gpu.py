"""The package, compiled by nvcc, on a real GPU with PyTorch; skipped where there is none. By hand, with a package that was built
with GRADUS_CUDA and is on PYTHONPATH beside tests/bindings/python:

    python3 -m pytest tests/bindings/python_cuda/test_on_a_gpu.py
"""

from __future__ import annotations

from typing import Any

import gradus
import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("PyTorch finds no GPU", allow_module_level=True)
import gradus.torch as drop_in  # noqa: E402

NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16}


def random(n: int, seed: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", NUMPY, ids=str)
@pytest.mark.parametrize("recipe", ["sgd", "adam", "adamw", "adams", "yogi", "nadam", "lamb", "schedule_free_adamw"])
def test_steps_agree_with_those_of_the_cpu(recipe: str, dtype: Any) -> None:
    w, g = random(5000, 1, dtype), random(5000, 2, dtype)
    on_cpu, on_gpu = gradus.Optimizer(recipe, lr=0.01), gradus.Optimizer(recipe, lr=0.01)
    cw, cg, dw, dg = w.numpy().copy(), g.numpy().copy(), w.cuda(), g.cuda()
    on_cpu.add("w", cw, cg)
    on_gpu.add("w", dw, dg)
    for t in range(20):
        for opt in (on_cpu, on_gpu):
            opt.step(lr_scale=1 / (1 + t), max_grad_norm=10.0)
    assert on_gpu.device == "cuda:0" and on_gpu.report().applied
    assert on_gpu.report().grad_norm == on_cpu.report().grad_norm  # an exact sum, rounded once
    torch.cuda.synchronize()
    # CUDA's pow, of the bias corrections, may differ in the last bit.
    np.testing.assert_allclose(dw.cpu().numpy().astype(float), cw.astype(float), rtol=2e-3 if dtype == torch.float16 else 1e-5, atol=1e-6)


def test_arrays_of_cupy_and_of_pytorch_have_the_same_bits() -> None:
    cupy = pytest.importorskip("cupy")
    w, g = random(4097, 3), random(4097, 4)
    of_torch, of_cupy = gradus.Optimizer("adams", lr=0.01), gradus.Optimizer("adams", lr=0.01)
    tw, tg, cw, cg = w.cuda(), g.cuda(), cupy.asarray(w.numpy()), cupy.asarray(g.numpy())
    of_torch.add("w", tw, tg)
    of_cupy.add("w", cw, cg)
    for _ in range(5):
        of_torch.step()
        of_cupy.step()
    of_torch.report(), of_cupy.report()
    assert tw.cpu().numpy().tobytes() == cupy.asnumpy(cw).tobytes()
    assert repr(of_torch.report()) == repr(of_cupy.report())


def model() -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Tanh(), torch.nn.Linear(128, 10)).cuda()


def losses(net: Any, optimizer: Any, steps: int = 30) -> list[float]:
    x, y = random(32 * 64, 5).view(32, 64).cuda(), torch.arange(32).cuda() % 10
    out = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=False)
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        out.append(float(loss))
    return out


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD"])
def test_the_drop_in_follows_pytorchs_own(name: str) -> None:
    ours, theirs = model(), model()
    a = losses(ours, getattr(drop_in, name)(ours.parameters(), lr=0.01))
    b = losses(theirs, getattr(torch.optim, name)(theirs.parameters(), lr=0.01))
    assert a[-1] < a[0] / 2
    np.testing.assert_allclose(a, b, rtol=1e-3)


def test_steps_on_a_stream_of_ones_own() -> None:
    ours, twin = model(), model()
    expected = losses(twin, drop_in.AdamW(twin.parameters(), lr=0.01))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = losses(ours, drop_in.AdamW(ours.parameters(), lr=0.01))
    assert got == expected


def test_a_step_in_a_graph() -> None:
    ours, twin = model(), model()
    g = [torch.full_like(p, 0.01) for p in ours.parameters()]
    for net in (ours, twin):
        for p, x in zip(net.parameters(), g):
            p.grad = x.clone()
    captured, plain = drop_in.AdamW(ours.parameters(), lr=0.01), drop_in.AdamW(twin.parameters(), lr=0.01)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        captured.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for _ in range(4):
        graph.replay()
    for _ in range(5):
        plain.step()
    torch.cuda.synchronize()
    for p, q in zip(ours.parameters(), twin.parameters()):
        assert torch.equal(p, q)


def test_a_checkpoint_goes_on_between_the_cpu_and_the_gpu(tmp_path: Any) -> None:
    w, g = random(5000, 1), random(5000, 2)
    opt, dw, dg = gradus.Optimizer("adams", lr=0.01), w.cuda(), g.cuda()
    opt.add("w", dw, dg)
    for _ in range(3):
        opt.step()
    opt.save(tmp_path / "state.safetensors", parameters=True)
    rw, rg = torch.zeros(5000).numpy(), g.numpy().copy()
    resumed = gradus.Optimizer("adams", lr=0.01)
    resumed.add("w", rw, rg)
    resumed.load(tmp_path / "state.safetensors", parameters=True)
    for o in (opt, resumed):
        o.step()
    opt.report()
    np.testing.assert_allclose(dw.cpu().numpy(), rw, rtol=1e-5, atol=1e-7)
    assert resumed.step_count("w") == opt.step_count("w") == 4
