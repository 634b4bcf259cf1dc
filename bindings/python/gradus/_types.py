"""Types for the signatures of gradus."""

from typing import Any, Protocol


class SupportsDLPack(Protocol):
    """An array that DLPack can view: NumPy's, PyTorch's, and others."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...

    def __dlpack_device__(self) -> "tuple[Any, Any]": ...


class SupportsCudaArrayInterface(Protocol):
    """An array of a CUDA device that Numba, CuPy and others can view."""

    @property
    def __cuda_array_interface__(self) -> "dict[str, Any]": ...
