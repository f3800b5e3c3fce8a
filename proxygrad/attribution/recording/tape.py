"""The tape: every operation of one forward pass, with the memory that it read and wrote.

Operations are recorded where they reach aten, below Python and autograd (`torch.utils._python_dispatch`). So
modules, functions, methods and operators are one vocabulary, however they are spelled, reused or nested, and
what runs inside TorchScript or a `torch.autograd.Function` is recorded as well: DeepLIFT depends on values
alone, and a gradient that somebody gave a function says nothing of them.

What a tensor names is a place in memory: a storage, and a shape, strides and offset in it (`Place`). Views
then are no operations, and one that works in place writes to a place that others read before. A storage that
is written to is copied first, once, where the tape still needs its values (`Memory.write`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from proxygrad.errors import NetworkError
from proxygrad.torch_function import TorchFunctionInterceptor

#: Operations in place that change how a tensor looks at its memory, and not the memory.
_VIEWS_IN_PLACE_TEXT = "as_strided_ transpose_ t_ squeeze_ unsqueeze_ swapdims_ swapaxes_ detach_"
_VIEWS_IN_PLACE = frozenset(_VIEWS_IN_PLACE_TEXT.split())

#: Operations that read of a tensor its shape and type alone.
_SHAPES_ALONE_TEXT = (
    "empty_like zeros_like ones_like full_like rand_like randn_like new_empty new_zeros new_ones new_full "
    "new_empty_strided"
)
_SHAPES_ALONE = frozenset(_SHAPES_ALONE_TEXT.split())


class Memory:
    """A storage: one flat row of numbers, in as many versions as it was written to.

    ``number``: of the storages of a tape, in the order in which they were first seen. ``varies``: its numbers
    depend on the input. ``writes``: the calls that wrote to it, by their index, and where.
    """

    def __init__(self, tensor: Tensor, number: int, varies: bool) -> None:
        self.number = number
        self.varies = varies
        self.dtype = tensor.dtype
        self.writes: list[tuple[int, Place]] = []
        storage = tensor.untyped_storage()
        self.numel = storage.nbytes() // tensor.element_size()
        self.version = 0
        self._now = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        self._now.set_(storage, 0, (self.numel,), (1,))
        self._before: dict[int, Tensor] = {}
        self._needed = False  # a place of this version is on the tape

    def place(self, tensor: Tensor) -> Place:
        """Where ``tensor``, which lies in this storage, is now."""
        if tensor.dtype != self.dtype:
            raise NetworkError(f"memory of {self.dtype} is read as {tensor.dtype}, which has no multipliers")
        self._needed = True
        return Place(
            self,
            tuple(tensor.shape),
            tensor.stride(),
            int(tensor.storage_offset()),
            self.version,
            self.varies,
        )

    def write(self) -> None:
        """Begin a new version: keep the numbers of this one where a place on the tape has them."""
        if self._needed:
            self._before[self.version] = self._now.clone()
        self.version += 1
        self._needed = False

    def numbers(self, version: int) -> Tensor:
        """All numbers of a version, ``(numel,)``."""
        return self._before.get(version, self._now)


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor as the tape knows it: which memory, seen how, in which version."""

    memory: Memory
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    version: int
    varies: bool

    @property
    def value(self) -> Tensor:
        """Its numbers at the time; not to be written to."""
        return self.memory.numbers(self.version).as_strided(self.shape, self.stride, self.offset)

    @property
    def looks(self) -> tuple[Any, ...]:
        """Shape, strides and offset."""
        return self.shape, self.stride, self.offset

    @property
    def whole(self) -> bool:
        """It has each number of its memory, once."""
        numel = 1
        for size, stride in sorted(zip(self.shape, self.stride, strict=True), key=lambda each: each[1]):
            if size != 1 and stride != numel:
                return False
            numel *= size
        return numel == self.memory.numel


@dataclass(eq=False)
class Call:
    """One operation of a pass. Tensors in ``args`` and ``kwargs`` are places; ``outs`` are what it wrote.

    ``layer``: the modules that ran, the innermost last: ``name``, or from its second call on ``name@2``.
    """

    index: int
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[Place | None, ...]
    layer: tuple[str, ...]

    @property
    def name(self) -> str:
        """The operation's name in aten, the same in place or not: ``relu``."""
        return operation_name(self.func)

    @property
    def places(self) -> list[Place]:
        """The places that it read, those of constants too."""
        return [each for each in tree_flatten((self.args, self.kwargs))[0] if isinstance(each, Place)]


def operation_name(func: Any) -> str:
    """``relu`` of ``aten.relu_.default``, ``torchvision::nms`` of another library's."""
    return str(func._schema.name).removeprefix("aten::").rstrip("_")


@dataclass(eq=False)
class Tape:
    """The calls that depend on the input, in order, and the places of named values."""

    calls: list[Call] = field(default_factory=list)
    input: Place | None = None
    output: Place | None = None
    inner: Place | None = None
    inner_from: int = 0  # the calls from this index on ran after the inner value was there


#: Operations in the place of another: called with its arguments, or returns NotImplemented.
Decompositions = dict[str, Callable[..., Any]]


class Recorder(TorchDispatchMode):
    """Context manager: records what runs in this thread and depends on a tensor given to `follow`.

    ``decompositions``: by name, what runs in place of an operation, and is recorded instead. ``ran``: the
    modules' calls, as ``name`` or ``name@2``.
    """

    def __init__(self, decompositions: Decompositions) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = Tape()
        self.layers: list[str] = []
        self.ran: set[str] = set()
        self._decompositions = decompositions
        self._memories: dict[int, Memory] = {}

    def follow(self, tensor: Tensor) -> Place:
        """The place of ``tensor``, whose numbers vary from now on."""
        memory = self._memory(tensor)
        memory.varies = True
        return memory.place(tensor)

    def place(self, tensor: Tensor) -> Place:
        """The place of a tensor now."""
        return self._memory(tensor).place(tensor)

    def _place_or_constant(self, tensor: Tensor) -> Place | Tensor:
        """A sparse tensor is a constant, and has no place."""
        return tensor if _is_sparse(tensor) else self.place(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if operation_name(func) in _SHAPES_ALONE:
            return func(*args, **kwargs)
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        varies = any(self._varies(each) for each in tensors)
        if varies and (result := self._in_pieces(func, args, kwargs)) is not NotImplemented:
            return result
        written = [] if func.__name__.partition(".")[0] in _VIEWS_IN_PLACE else _written(func, args, kwargs)
        if not varies:
            for each in written:
                if not _is_sparse(each) and (memory := self._memories.get(_key(each))) is not None:
                    memory.write()
            return func(*args, **kwargs)
        read = tree_map_only(Tensor, self._place_or_constant, (args, kwargs))
        for memory in {self._memory(each): None for each in written}:
            memory.write()
        result = func(*args, **kwargs)
        outs = [each for each in tree_flatten(result)[0] if isinstance(each, Tensor)] or written
        if not written and all(any(_same_storage(out, each) for each in tensors) for out in outs):
            return result  # a view
        self._record(func, read, outs)
        return result

    def _in_pieces(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result where others run in place of an operation, which are recorded; else NotImplemented."""
        if (pieces := self._decompositions.get(operation_name(func))) is not None:
            with self:
                return pieces(*args, **kwargs)
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:  # aten's own; they arrive whole where a decomposition calls them
                return func.decompose(*args, **kwargs)
        return NotImplemented

    def _record(self, func: Any, read: tuple[Any, Any], outs: Sequence[Tensor]) -> None:
        index = len(self.tape.calls)
        places = []
        for out in outs:
            if _is_sparse(out):
                name, layout = operation_name(func), out.layout
                raise NetworkError(f"operation {name!r} returns {layout}, which has no multipliers")
            memory = self._memory(out)
            memory.varies = True
            places.append(memory.place(out))
            memory.writes.append((index, places[-1]))
        self.tape.calls.append(Call(index, func, *read, tuple(places), tuple(self.layers)))

    def _memory(self, tensor: Tensor) -> Memory:
        key = _key(tensor)
        if key not in self._memories:
            self._memories[key] = Memory(tensor, len(self._memories), varies=False)
        return self._memories[key]

    def _varies(self, tensor: Tensor) -> bool:
        memory = None if _is_sparse(tensor) else self._memories.get(_key(tensor))
        return memory is not None and memory.varies


def _is_sparse(tensor: Tensor) -> bool:
    return tensor.layout != torch.strided


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _same_storage(first: Tensor, second: Tensor) -> bool:
    return not (_is_sparse(first) or _is_sparse(second)) and _key(first) == _key(second)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that the operation writes to."""
    found: list[Tensor] = []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            found += [each for each in tree_flatten(value)[0] if isinstance(each, Tensor)]
    return found


class SlowPaths(TorchFunctionInterceptor):
    """Context manager: torch's attention and transformer layers run operation by operation.

    Their fast paths are one operation each, and are not taken where somebody intercepts calls. ``attention``
    runs in place of scaled dot product attention, which has another kernel on every device.
    """

    def __init__(self, attention: Callable[..., Any]) -> None:
        super().__init__()
        self._attention = attention

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call as it is, or the one that takes its place."""
        if func is functional.scaled_dot_product_attention:
            result = self._attention(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


def watch_modules(
    recorder: Recorder, modules: dict[str, nn.Module], returned: Callable[[str, Any], None]
) -> AbstractContextManager[Any]:
    """Context manager: tells the recorder which of ``modules`` run, and calls ``returned(layer, output)``."""
    calls: Counter[str] = Counter()
    stack = ExitStack()

    def enter(name: str) -> Callable[..., None]:
        def before(module: nn.Module, inputs: Any) -> None:
            calls[name] += 1
            recorder.layers.append(name if calls[name] == 1 else f"{name}@{calls[name]}")
            recorder.ran.add(f"{name}@{calls[name]}")

        return before

    def leave(name: str) -> Callable[..., None]:
        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            label = ""
            while recorder.layers and label.partition("@")[0] != name:
                label = recorder.layers.pop()
            returned(label, output)

        return after

    for name, module in modules.items():
        stack.callback(module.register_forward_pre_hook(enter(name), prepend=True).remove)
        stack.callback(module.register_forward_hook(leave(name), prepend=True).remove)
    return stack


def floating(places: Sequence[Place | None]) -> Iterator[Place]:
    """Those of ``places`` that are there and hold floating-point numbers."""
    return (each for each in places if each is not None and each.memory.dtype.is_floating_point)
