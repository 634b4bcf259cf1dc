"""gradus.Optimizer over arrays of a device: the bits of C, state, checkpoints, streams, and what is refused."""

from __future__ import annotations

import gc
import pickle
import weakref
from typing import Any

import gradus
import numpy as np
import pytest
from elsewhere import CUDA, Array, InC, Interface, Old, content
from support import refused

# The recipes that the library under test has on devices.
RECIPES = ("sgd", "adamw", "adams", "yogi", "nadam", "lamb", "schedule_free_adamw")


def random(n: int, seed: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).standard_normal(n).astype(dtype)


def optimizer(recipe: str = "adamw", n: int = 8, **numbers: Any) -> tuple[gradus.Optimizer, Any, Any]:
    opt, w, g = gradus.Optimizer(recipe, **numbers), np.ones(n, np.float32), np.linspace(-1, 1, n, dtype=np.float32)
    opt.add("w", Array(w), Array(g))
    return opt, w, g


def test_the_package_knows_where_it_is() -> None:
    assert gradus.has_cuda
    opt, _, _ = optimizer("sgd", lr=0.5)
    assert opt.device == "cuda:0" and opt.stream == 0 and opt.dtype == "float32"
    assert repr(opt).endswith("of 1 tensors, 8 parameters in float32 on CUDA 0")
    assert gradus.Optimizer("sgd").device is None
    on_host = gradus.Optimizer("sgd")
    on_host.add("w", np.ones(3), np.ones(3))
    assert on_host.device == "cpu"


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_steps_have_the_bits_of_c(recipe: str, dtype: str) -> None:
    w, g = random(5000, 1, dtype), random(5000, 2, dtype)
    w_in_c = w.copy()
    opt, in_c = gradus.Optimizer(recipe, lr=0.01), InC(recipe, dtype, lr=0.01)
    assert opt.add_group(lr=0.02) == in_c.add_group(lr=0.02) == 1
    opt.add("a", Array(w[:4097]), Array(g[:4097]))
    opt.add("b", Array(w[4097:]), Array(g[4097:]), group=1)
    in_c.add("a", w_in_c[:4097], g[:4097])
    in_c.add("b", w_in_c[4097:], g[4097:], 1)
    for t in range(5):
        opt.step(lr_scale=0.5, max_grad_norm=1.0)
        in_c.step(0.5, 1.0)
    assert w.tobytes() == w_in_c.tobytes()
    report = opt.report()
    assert report.applied and not report.pending
    assert report.grad_norm == pytest.approx(np.linalg.norm(g.astype(float)), rel=1e-3 if dtype == "float16" else 1e-6)
    assert opt.step_count("b") == 5


def test_state_is_a_view_that_other_libraries_take() -> None:
    opt, w = gradus.Optimizer("adam"), np.asfortranarray(np.ones((2, 3), np.float32))
    with refused('optimizer is "adam"; expected one of sgd'):  # which this library has only on the host
        opt.add("w", Array(w), Array(np.asfortranarray(np.ones((2, 3), np.float32))))
    opt = gradus.Optimizer("adamw")
    g = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    opt.add("w", Array(w), Array(g))
    opt.step()
    state = opt.state("w")
    assert set(state) == {"exp_avg", "exp_avg_sq"}
    m = state["exp_avg"]
    assert isinstance(m, gradus.DeviceArray) and m.shape == (2, 3) and m.dtype == "float32"
    assert repr(m) == "gradus.DeviceArray(shape=(2, 3), dtype=float32, on CUDA 0)"
    assert m.__dlpack_device__() == (CUDA, 0)
    np.testing.assert_allclose(content(m), 0.1 * g, rtol=1e-6)
    for options in ({}, {"stream": 1}, {"stream": -1}, {"stream": None, "max_version": (1, 0)}):
        other = gradus.Optimizer("sgd", lr=1.0)  # takes it as any other array of the device
        other.add("m", m, Array(np.asfortranarray(np.zeros((2, 3), np.float32))))
        m.__dlpack__(**options)
    with refused("cannot be removed while arrays from state() live", BufferError):
        opt.remove("w")
    del opt, state
    gc.collect()
    np.testing.assert_allclose(content(m), 0.1 * g, rtol=1e-6)


def test_rebind_freeze_remove() -> None:
    opt, w, g = optimizer("sgd", lr=1.0)
    w[:], g[:] = 1, 1
    opt.freeze("w")
    opt.step()
    assert w[0] == 1
    opt.unfreeze("w")
    other = np.ones(8, np.float32)
    opt.rebind("w", Array(other), Array(g))
    opt.step()
    assert w[0] == 1 and other[0] == 0 and opt.step_count("w") == 1
    opt.rebind("w", Array(other))  # without gradients
    opt.step()
    assert other[0] == 0
    with refused("no gradients"):
        opt.unfreeze("w")
    opt.remove("w")
    assert len(opt) == 0 and opt.parameter_count == 0
    opt.add("w", w, g)  # the first of the tensors decides
    assert opt.device == "cpu"
    opt.step()
    assert w[0] == 0
    opt.remove("w")
    opt.add("w", Array(w), Array(g))
    assert opt.device == "cuda:0"


def test_what_is_refused_leaves_a_new_optimizer_on_the_host_usable() -> None:
    opt = gradus.Optimizer("sgd", lr=1.0)
    shared = np.ones(8, np.float32)
    with refused('gradients of tensor "x" overlap its parameters'):
        opt.add("x", Array(shared), Array(shared))
    w = np.ones(3, np.float32)
    opt.add("w", w, np.ones(3, np.float32))
    opt.step()
    assert opt.device == "cpu" and w[0] == 0
    assert opt.state("w") == {}


def test_float16_has_master_weights() -> None:
    w = np.ones(4, np.float16)
    opt = gradus.Optimizer("sgd", lr=1e-4)
    opt.add("w", Array(w), Array(np.ones(4, np.float16)))
    for _ in range(10):
        opt.step()
    np.testing.assert_allclose(content(opt.state("w")["master"]), 1 - 1e-3, rtol=1e-6)
    w[:] = 2
    opt.reset_master("w")
    assert np.all(content(opt.state("w")["master"]) == 2)


def test_checkpoints_go_to_the_host_and_back() -> None:
    for dtype in ("float32", "float64", "float16"):
        start, g = random(300, 1, dtype), random(300, 2, dtype)
        w, again, on_host = start.copy(), start.copy(), start.copy()
        opt, host, resumed = gradus.Optimizer("adams", weight_decay=0.01), gradus.Optimizer("adams"), gradus.Optimizer("adams")
        opt.add("w", Array(w), Array(g))
        host.add("w", on_host, g)
        resumed.add("w", Array(again), Array(g))
        for _ in range(3):
            opt.step()
        saved = opt.dumps(parameters=True)
        host.loads(saved)
        assert on_host.tobytes() == w.tobytes() and host.dumps(parameters=True) == saved
        resumed.loads(host.dumps(parameters=True))
        for _ in range(2):
            opt.step()
            resumed.step()
        assert w.tobytes() == again.tobytes() and opt.dumps() == resumed.dumps()


def test_pickles_take_the_arrays_along() -> None:
    opt, w, _ = optimizer("adamw")
    opt.step()
    copied = pickle.loads(pickle.dumps(opt))
    assert copied.device == "cuda:0" and copied.dumps(parameters=True) == opt.dumps(parameters=True)
    copied.step()
    assert copied.step_count("w") == 2 and opt.step_count("w") == 1


def test_arrays_live_while_they_are_bound() -> None:
    class Weak(np.ndarray):
        pass

    opt = gradus.Optimizer("sgd", lr=1.0)
    x = np.ones(8, np.float32).view(Weak)
    ref = weakref.ref(x)
    opt.add("w", Array(x), Array(np.ones(8, np.float32)))
    del x
    gc.collect()
    assert ref() is not None
    opt.step()
    opt.rebind("w", Array(np.ones(8, np.float32)))
    gc.collect()
    assert ref() is None


def test_streams_are_told_to_the_arrays_libraries() -> None:
    class Torch:
        cuda_stream = 7

    class CuPy:
        ptr = 8

    class Other:
        def __cuda_stream__(self) -> tuple[int, int]:
            return (0, 9)

    for given, stream, asked in ((None, 0, 1), (0, 0, 1), (5, 5, 5), (Torch(), 7, 7), (CuPy(), 8, 8), (Other(), 9, 9)):
        opt, w, g = gradus.Optimizer("sgd", lr=1.0, stream=given), Array(np.ones(3, np.float32)), Array(np.ones(3, np.float32))
        opt.add("w", w, g)
        assert opt.stream == stream and w.asked == g.asked == [asked]
        assert opt.state("w") == {} and opt.step().applied
    opt.stream = 5
    w = Array(np.ones(3, np.float32))
    opt.rebind("w", w, g)
    assert opt.stream == 5 and w.asked == [5]
    opt.step()
    assert w.values[0] == 0
    with refused("stream is 'x'; expected the address of a CUDA stream", TypeError):
        opt.stream = "x"
    assert opt.stream == 5
    adamw, _, _ = optimizer("adamw", stream=6)
    adamw.step()
    assert adamw.state("w")["exp_avg"].__cuda_array_interface__["stream"] == 6


def test_arrays_of_libraries_without_dlpack_1() -> None:
    w = np.ones(3, np.float32)
    opt = gradus.Optimizer("sgd", lr=1.0)
    opt.add("w", Old(w), Old(np.ones(3, np.float32)))
    opt.step()
    assert w[0] == 0


def test_arrays_that_only_have_cudas_array_interface() -> None:
    for dtype in (np.float32, np.float64, np.float16):
        w = np.asfortranarray(np.ones((2, 3), dtype))
        opt = gradus.Optimizer("sgd", lr=1.0)
        opt.add("w", Interface(w), Interface(np.asfortranarray(np.ones((2, 3), dtype))))
        opt.step()
        assert opt.device == "cuda:0" and opt.dtype == np.dtype(dtype).name and not w.any()
        opt.rebind("w", Array(w), Interface(np.asfortranarray(np.ones((2, 3), dtype)), stream=None))
    ones = np.ones(4, np.float32)
    opt = gradus.Optimizer("sgd")
    locked = np.ones(4, np.float32)
    locked.flags.writeable = False
    packed = np.zeros(4, [("a", np.float32), ("b", np.int16)])["a"]
    for given, part in ((Interface(locked), "are read-only"), (Interface(np.ones(8, np.float32)[::2]), "are not contiguous"),
                        (Interface(ones, typestr="<i4"), "are <i4; expected float32"), (Interface(ones, mask=ones), "have a mask"),
                        (Interface(packed), "are not contiguous")):
        with refused('parameters of tensor "x"'):
            opt.add("x", given, Interface(ones))
        with refused(part):
            opt.add("x", given, Interface(ones))
    opt.add("empty", Interface(np.ones((0, 3), np.float32)), Interface(np.ones((0, 3), np.float32)))
    assert len(opt) == 1


def test_options_of_replays() -> None:
    opt, _, _ = optimizer("sgd", lr=1.0)
    opt.set_options(lr_scale=0.5, max_grad_norm=1.0)
    with refused("lr_scale is -1"):
        opt.set_options(lr_scale=-1)
    with refused("flush_denormals is 1; expected 0"):
        opt.step(flush_denormals=True)
    on_host = gradus.Optimizer("sgd")
    with refused("the optimizer is on the host"):
        on_host.set_options()


def test_arrays_that_do_not_fit_are_refused_with_their_names() -> None:
    opt, w, g = optimizer()

    def ones(n: int, number: int = 0, dtype: Any = np.float32) -> Array:
        return Array(np.ones(n, dtype), number)

    locked = np.ones(3, np.float32)
    locked.flags.writeable = False
    with refused('parameters of tensor "x" are on the CPU; expected CUDA 0, as the first tensor\'s'):
        opt.add("x", np.ones(3, np.float32), np.ones(3, np.float32))
    with refused('gradients of tensor "x" are on the CPU; expected CUDA 0, as its parameters'):
        opt.add("x", ones(3), np.ones(3, np.float32))
    with refused('gradients of tensor "x" are on CUDA 1; expected CUDA 0, as its parameters'):
        opt.add("x", ones(3), ones(3, 1))
    with refused('parameters of tensor "x" are on CUDA 1; expected CUDA 0, as the first tensor\'s'):
        opt.add("x", ones(3, 1), ones(3, 1))
    with refused('parameters of tensor "w" are on the CPU; expected CUDA 0'):
        opt.rebind("w", w, g)
    with refused('averages of tensor "w" are on the CPU; expected CUDA 0'):
        opt.copy_average("w", w)
    with refused("expected one that averages weights"):
        opt.copy_average("w", ones(8))
    with refused('parameters of tensor "x" are read-only'):
        opt.add("x", Array(locked), ones(3))
    with refused('parameters of tensor "x" are float64; expected float32, as the first tensor\'s'):
        opt.add("x", ones(3, dtype=np.float64), ones(3, dtype=np.float64))
    with refused('parameters of tensor "x", of shape (2,), are not contiguous'):
        opt.add("x", Array(np.ones(4, np.float32)[::2]), ones(2))
    with refused('gradients of tensor "x" have shape (2,); expected (3,)'):
        opt.add("x", ones(3), ones(2))
    with refused('parameters of tensor "x" overlap the parameters of tensor "w"'):
        opt.add("x", Array(w), ones(8))

    class OnROCm(Array):
        def __dlpack_device__(self) -> tuple[int, int]:
            return (10, 0)

    with refused('parameters of tensor "x" are on ROCm 0; expected an array on the CPU or a CUDA device'):
        opt.add("x", OnROCm(w), ones(8))
    on_host = gradus.Optimizer("sgd")
    on_host.add("w", np.ones(3, np.float32), np.ones(3, np.float32))
    with refused('parameters of tensor "x" are on CUDA 0; expected the CPU, as the first tensor\'s'):
        on_host.add("x", ones(3), ones(3))
    assert opt.names() == ["w"]
    opt.step()
