"""A CUDA device that is pretended: numbers on the host behind tensors that say they lie on a device, and are as hard to come by.

Host tensors with axes do not mix with a device's. What makes the host wait for the device is noted in `Device.waits`; a copy that nothing
waits for has arrived only when its event has. Kernels are the CPU's, so nothing is learnt here about those of a GPU.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._foreach_utils import _foreach_supported_types
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

BENEATH = "maia"  # what torch's C++ takes the device for: a type that needs no backend, while it looks for CUDA's streams in vain
HOST = torch.device("cpu")
READS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_consecutive", "unique_dim", "is_nonzero"}
UNMIXED = {"cat", "stack", "mm", "addmm", "bmm", "native_batch_norm", "convolution"}  # take no number of the host's either
MOVES = {"copy_", "_to_copy", "index"}


class OnDevice(torch.Tensor):
    """A tensor on the device; its numbers are in `inner`."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> Any:
        strides, offset = inner.stride(), inner.storage_offset()
        beneath = torch.device(BENEATH, device.index)
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=strides, storage_offset=offset, dtype=inner.dtype, device=beneath, layout=inner.layout
        )
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:
        """What Python code gets to know of it."""
        return torch.device("cuda", super().device.index)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {self.device} device type tensor to numpy.")
        return self.detach().cpu().numpy()

    def __tensor_flatten__(self) -> Any:
        return ["inner"], self.device

    @staticmethod
    def __tensor_unflatten__(inner: Any, device: Any, size: Any, stride: Any) -> Any:
        return OnDevice(inner["inner"], device)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} ran where no device is pretended")


class Event:
    """A stand-in for `torch.cuda.Event`: the copies that were under way on its stream's device when it was recorded."""

    device: "Device"

    def record(self, stream: Any = None) -> None:
        self._where = stream.device if stream is not None else torch.device("cuda:0")
        self._copies = [c for c in self.device.under_way if c[0] == self._where]
        self.device.under_way = [c for c in self.device.under_way if c[0] != self._where]

    def _arrive(self) -> None:
        for _, host, numbers in self._copies:
            host.copy_(numbers)
        self._copies = []

    def query(self) -> bool:
        if self.device.slow:
            return False
        self._arrive()
        return True

    def synchronize(self) -> None:
        self.device.events += bool(self._copies)
        self._arrive()


class Device(TorchDispatchMode):
    """The device while it is pretended. `waits` are what the host waited for, `events` counts waits for events: late ones if `slow`."""

    def __init__(self, slow: bool = False) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.events, self.slow = 0, slow
        self.under_way: list[tuple[torch.device, torch.Tensor, torch.Tensor]] = []
        self._pinned: dict[int, torch.Tensor] = {}  # by address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func._schema.name.removeprefix("aten::")
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        devices = {t.device for t in given if isinstance(t, OnDevice)}
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = HOST
        if not devices and (wanted is None or wanted.type == "cpu") and name != "copy_":
            pinned = kwargs.pop("pin_memory", False)
            made = func(*args, **kwargs)
            return self._pin(made) if pinned else made
        if name == "copy_":
            return self._copied(*args[:2], bool(kwargs.get("non_blocking") or any(args[2:])))
        self._check(name, given, devices)
        to = _indexed(wanted) if wanted is not None else next(iter(devices), HOST)
        pinned, kwargs["pin_memory"] = kwargs.get("pin_memory", False), False
        if not pinned:
            kwargs.pop("pin_memory")
        if name == "_to_copy" and {to} != (devices or {HOST}) and not kwargs.get("non_blocking"):
            self.waits.append("to host" if to == HOST else "to device")
        if name in READS or (name in ("index", "index_put", "index_put_") and any(t.dtype in (torch.bool, torch.uint8) for t in given[1:])):
            self.waits.append(name)
        plain = tree_map(_plain, (args, kwargs))
        out = func(*plain[0], **{**plain[1], **({"pin_memory": False} if pinned else {})})
        if to == HOST:
            return self._pin(out) if pinned else out
        return return_and_correct_aliasing(
            func, args, kwargs, tree_map(lambda t: OnDevice(t, to) if isinstance(t, torch.Tensor) else t, out)
        )

    def _check(self, name: str, given: list[torch.Tensor], devices: set[torch.device]) -> None:
        strangers = [t for t in given if not isinstance(t, OnDevice) and (t.ndim or name in UNMIXED)]
        if name not in MOVES and devices and (len(devices) > 1 or strangers):
            raise RuntimeError(f"Expected all tensors to be on the same device, {name} got {[str(t.device) for t in given]}")

    def _pin(self, t: torch.Tensor) -> torch.Tensor:
        self._pinned[t.data_ptr()] = t
        return t

    def _copied(self, to: torch.Tensor, of: torch.Tensor, without_waiting: bool) -> torch.Tensor:
        into, numbers = _plain(to), _plain(of)
        if into is numbers or to.device == of.device or (without_waiting and to.device != HOST):
            into.copy_(numbers)
        elif without_waiting and to.data_ptr() in self._pinned:
            into.fill_(torch.nan)
            self.under_way.append((of.device, into, numbers.clone()))
        else:
            self.waits.append("to host" if to.device == HOST else "to device")
            into.copy_(numbers)
        return to


def _plain(t: Any) -> Any:
    return t.inner if isinstance(t, OnDevice) else t


def _indexed(device: torch.device) -> torch.device:
    return torch.device("cuda", device.index or 0) if device.type != "cpu" else device


def moved(module: nn.Module, device: str = "cuda:0") -> nn.Module:
    """The module with its parameters and buffers on the device."""
    for m in module.modules():
        for name, p in m._parameters.items():
            m._parameters[name] = None if p is None else nn.Parameter(p.detach().to(device), p.requires_grad)
        for name, b in m._buffers.items():
            m._buffers[name] = None if b is None else b.to(device)
    return module


@contextmanager
def pretended(patch: pytest.MonkeyPatch, slow: bool = False) -> Iterator[Device]:
    """Inside, `cuda` is a device; all that is changed of torch is put back afterwards."""
    device = Device(slow)
    Event.device = device
    for name, stand_in in _STAND_INS.items():
        patch.setattr(f"torch.cuda.{name}", stand_in)
    _foreach_supported_types.append(OnDevice)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes its tensor on the host first, as it does for a real device
    try:
        with _guarded(), torch.autograd.set_multithreading_enabled(False), device:
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        _foreach_supported_types.remove(OnDevice)


_STAND_INS: dict[str, Callable[..., Any]] = {
    "_lazy_init": lambda: None,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "get_rng_state": lambda device="cuda": torch.default_generator.get_state(),
    "set_rng_state": lambda state, device="cuda": torch.default_generator.set_state(state),
    "current_stream": lambda device=None: _Stream(torch.device(device or "cuda:0")),
    "amp.common.amp_definitely_not_available": lambda: False,
    "is_bf16_supported": lambda *_: True,
    "Event": Event,
}


class _Stream:
    def __init__(self, device: torch.device) -> None:
        self.device = device


@contextmanager
def _guarded() -> Iterator[None]:
    """Autograd asks a device type's guard for streams: the CPU's, which has none, stands in for the one that is missing."""
    library = ctypes.CDLL(f"{torch.__path__[0]}/lib/libc10.so")
    guards = (ctypes.c_void_p * 9).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")  # by number of the device type
    before = guards[8]
    guards[8] = guards[0]
    try:
        yield
    finally:
        guards[8] = before
