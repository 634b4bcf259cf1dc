"""Arrays in host memory that say that they are on a CUDA device, as the library under test believes; and libgradus_cuda in C."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

CUDA = 2  # DLPack's kDLCUDA
_api = ctypes.pythonapi
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]


def moved(capsule: Any, number: int) -> Any:
    """A capsule of DLPack that names another device."""
    name = _api.PyCapsule_GetName(capsule)
    tensor = _api.PyCapsule_GetPointer(capsule, name) + (32 if name == b"dltensor_versioned" else 0)
    device = (ctypes.c_int32 * 2).from_address(tensor + 8)
    device[:] = CUDA, number
    return capsule


class Array:
    """`values` on a device."""

    def __init__(self, values: Any, number: int = 0):
        self.values, self.number, self.asked = values, number, []

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> Any:
        self.asked.append(stream)
        return moved(self.values.__dlpack__(max_version=max_version), self.number)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CUDA, self.number)


class Old(Array):
    """An array of a library of before DLPack 1.0."""

    def __dlpack__(self, *, stream: Any = None) -> Any:  # type: ignore[override]
        return super().__dlpack__(stream=stream)


class Interface:
    """An array that only has __cuda_array_interface__."""

    def __init__(self, values: Any, **changed: Any):
        self.values = values
        described = values.__array_interface__
        self.__cuda_array_interface__ = {**{key: described[key] for key in ("shape", "typestr", "data", "strides")}, "version": 3, "stream": 1, **changed}


def content(slot: Any) -> Any:
    """A copy of a gradus.DeviceArray."""
    shown = slot.__cuda_array_interface__
    count = int(np.prod(shown["shape"]))
    kind: Any = ctypes.c_double if shown["typestr"] == "<f8" else ctypes.c_float
    flat = np.ctypeslib.as_array((kind * count).from_address(shown["data"][0]))
    return np.lib.stride_tricks.as_strided(flat, shown["shape"], shown["strides"]).copy()


# ── libgradus_cuda ───────────────────────────────────────────────────────────────────────────────────────────────────


class Number(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_double)]


class StepOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("lr_scale", ctypes.c_double), ("grad_scale", ctypes.c_double), ("max_grad_norm", ctypes.c_double),
                ("others", ctypes.c_char * 56)]


LIBRARY = ctypes.CDLL(os.environ["GRADUS_SHARED"])
LIBRARY.gradus_last_error.restype = ctypes.c_char_p
DTYPES = {"float32": 0, "float64": 1, "float16": 3}


class InC:
    """An optimizer on a device, by gradus_cuda.h."""

    def __init__(self, recipe: str, dtype: str, **numbers: float):
        self.opt = ctypes.c_void_p()
        self.check(LIBRARY.gradus_create_cuda(recipe.encode(), self.numbers(numbers), len(numbers), DTYPES[dtype], None, ctypes.byref(self.opt)))

    def __del__(self) -> None:
        LIBRARY.gradus_destroy(self.opt)

    @staticmethod
    def numbers(given: dict[str, float]) -> Any:
        return (Number * len(given))(*((name.encode(), value) for name, value in given.items()))

    @staticmethod
    def check(status: int) -> None:
        assert status == 0, LIBRARY.gradus_last_error()

    def add_group(self, **numbers: float) -> int:
        group = ctypes.c_size_t()
        self.check(LIBRARY.gradus_add_group(self.opt, self.numbers(numbers), len(numbers), ctypes.byref(group)))
        return group.value

    def add(self, name: str, w: Any, g: Any, group: int = 0) -> None:
        self.check(LIBRARY.gradus_add(self.opt, name.encode(), w.ctypes.data_as(ctypes.c_void_p), g.ctypes.data_as(ctypes.c_void_p),
                                      ctypes.c_size_t(w.size), ctypes.c_size_t(group), None))

    def step(self, lr_scale: float, max_grad_norm: float) -> None:
        options = StepOptions()
        LIBRARY.gradus_init_step_options(ctypes.byref(options), ctypes.sizeof(options))
        options.lr_scale, options.max_grad_norm = lr_scale, max_grad_norm
        self.check(LIBRARY.gradus_step(self.opt, ctypes.byref(options), None))
