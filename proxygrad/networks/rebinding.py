"""Rebinding: functions of a copied module that refer to the original are made to refer to the copy.

`copy.deepcopy` copies no functions. A ``forward`` that somebody wrapped in a closure, a hook that is a lambda
or a table of functions therefore still runs the original: its weights, in its mode, on its device.
"""

from __future__ import annotations

import contextvars
import copy
import functools
import threading
import types
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

#: Containers that change.
_STATE = (dict, list, set, OrderedDict, defaultdict)


class Rebinding:
    """Rebinds what a deep copy holds.

    ``memo``: of `copy.deepcopy`, after the copy: from the id of each original to its copy. Modules that only
    a function knows are copied as well, into the same memo.
    """

    def __init__(self, memo: dict[int, Any]) -> None:
        self._memo = memo
        self._copies: set[int] = set()
        self._note_copies()
        self._functions: dict[int, types.FunctionType] = {}
        self._visited: set[int] = set()

    def rebind(self, holder: Any) -> None:
        """Replace, in place, every function that ``holder``, which is a copy, holds however deep."""
        waiting = [holder]
        while waiting:
            each = waiting.pop()
            if id(each) in self._visited or isinstance(each, Tensor | type | types.ModuleType):
                continue
            self._visited.add(id(each))
            if isinstance(each, nn.Module):
                self._rebind_methods(each)
            if isinstance(each, dict | set | weakref.WeakKeyDictionary):
                self._rename_keys(each)
            for place, key, value in _entries(each):
                found = self.rebound(value)
                if found is not value:
                    place[key] = found
                elif id(found) in self._copies:
                    waiting.append(found)

    def rebound(self, value: Any) -> Any:
        """``value``, or where it refers to an original, the same of the copy."""
        found = self._memo.get(id(value), value)
        if isinstance(value, types.FunctionType):
            found = self._function(value)
        elif isinstance(value, types.MethodType | functools.partial | functools._lru_cache_wrapper):
            found = self._wrapper(value)
        elif isinstance(value, contextvars.ContextVar):
            found = self._variable(value)
        elif isinstance(value, nn.Module):
            found = value if id(value) in self._copies else self._copied(value)
        elif isinstance(value, weakref.ref):
            owner = self._memo.get(id(value()))
            found = value if owner is None else weakref.ref(owner)
        elif type(value) is int:
            found = self._id_of_copy(value)
        elif type(value) is tuple:
            items = tuple(map(self.rebound, value))
            found = value if all(new is old for new, old in zip(items, value, strict=True)) else items
        elif type(value) in _STATE and id(value) not in self._copies:
            found = self._state(value)
        return found

    def _wrapper(self, value: Any) -> Any:
        """A function of functools, or a method, around a function that refers to the copy."""
        if isinstance(value, types.MethodType):
            function, owner = self.rebound(value.__func__), self.rebound(value.__self__)
            same = function is value.__func__ and owner is value.__self__
            return value if same else types.MethodType(function, owner)
        if isinstance(value, functools.partial):
            function, args = self.rebound(value.func), tuple(map(self.rebound, value.args))
            kwargs = {name: self.rebound(each) for name, each in value.keywords.items()}
            return functools.partial(function, *args, **kwargs)
        function = self.rebound(value.__wrapped__)
        same = function is value.__wrapped__
        return value if same else functools.lru_cache(**value.cache_parameters())(function)

    def _variable(self, value: contextvars.ContextVar[Any]) -> contextvars.ContextVar[Any]:
        """One that holds the copy where ``value`` holds an original."""
        try:
            held = value.get()
        except LookupError:
            return value
        own = self.rebound(held)
        return value if own is held else contextvars.ContextVar(value.name, default=own)

    def _rename_keys(self, table: Any) -> None:
        """Where an original is a key of ``table`` or an item of that set, or its `id` is, put the copy's."""
        for key in list(table):
            found = self._id_of_copy(key) if type(key) is int else self._memo.get(id(key), key)
            if found is key or not isinstance(found, int | nn.Module | Tensor):
                continue
            if isinstance(table, set):
                table.remove(key)
                table.add(found)
            else:
                table[found] = table.pop(key)

    def _id_of_copy(self, number: int) -> int:
        """The id of a copy where ``number`` is that of an original; else the number."""
        copied = self._memo.get(number)
        return id(copied) if isinstance(copied, nn.Module | Tensor) else number

    def _state(self, value: Any) -> Any:
        """The copy of a container that a function writes to or reads from, such as stored activations."""
        if id(value) not in self._memo:
            try:
                made = copy.deepcopy(value, self._memo)
            except Exception:  # of something that cannot be copied: it stays shared
                return value
            self._note_copies()
            self.rebind(made)
        return self._memo[id(value)]

    def _note_copies(self) -> None:
        self._copies.update(id(each) for key, each in self._memo.items() if key != id(self._memo))

    def _rebind_methods(self, module: nn.Module) -> None:
        """Methods of a class that refer to an original, as those of a class that was made in a function.

        They become the module's own; properties, which torch and Python look up on the class, those of a
        class of its own.
        """
        seen, properties = set(vars(module)), dict[str, Any]()
        for kind in type(module).__mro__:
            if kind.__module__.startswith("torch.nn.") or kind is object:
                continue
            for name in vars(kind).keys() - seen:
                seen.add(name)
                self._rebind_method(module, name, vars(kind)[name], properties)
        if properties:
            kind = type(module)
            own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, **properties}
            module.__class__ = types.new_class(
                kind.__name__, (kind,), exec_body=lambda body: body.update(own)
            )

    def _rebind_method(self, module: nn.Module, name: str, method: Any, properties: dict[str, Any]) -> None:
        plain = method.__func__ if isinstance(method, staticmethod | classmethod) else method
        if isinstance(plain, types.FunctionType):
            found = self._function(plain, with_state=False)
            if found is not plain:
                owner = type(module) if isinstance(method, classmethod) else module
                is_static = isinstance(method, staticmethod)
                vars(module)[name] = found if is_static else types.MethodType(found, owner)
        elif isinstance(method, property | functools.cached_property):
            found = self._property(method)
            if found is not method:
                properties[name] = found

    def _property(self, value: Any) -> Any:
        is_cached = isinstance(value, functools.cached_property)
        parts = (value.func,) if is_cached else (value.fget, value.fset, value.fdel)
        own = [
            self._function(each, with_state=False) if isinstance(each, types.FunctionType) else each
            for each in parts
        ]
        same = all(new is old for new, old in zip(own, parts, strict=True))
        return value if same else type(value)(*own)

    def _copied(self, module: nn.Module) -> nn.Module:
        """The copy of an original module; also of one that is no part of the copied module."""
        made: nn.Module = copy.deepcopy(module, self._memo)
        self._note_copies()
        self.rebind(made)
        return made

    def _function(self, function: types.FunctionType, with_state: bool = True) -> types.FunctionType:
        """The function with other cells, defaults and globals where any of these refers to an original.

        ``with_state``: it has its own of containers too, as a hook that stores what it sees; methods of a
        class, which all of its instances have in common, only of those that hold modules.
        """
        if id(function) in self._functions:
            return self._functions[id(function)]
        self._functions[id(function)] = function  # while its own parts are looked at
        cells, changed = [], False
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                cells.append(cell)
                continue
            if content is function:  # it calls itself
                cells.append(types.CellType())
                continue
            found = self.rebound(content) if with_state or _holds_modules(content) else content
            changed |= found is not content
            cells.append(cell if found is content else types.CellType(found))
        defaults, keywords = function.__defaults__, function.__kwdefaults__
        given = tuple(map(self.rebound, defaults)) if defaults else defaults
        named = {name: self.rebound(each) for name, each in keywords.items()} if keywords else keywords
        changed |= any(new is not old for new, old in zip(given or (), defaults or (), strict=True))
        changed |= any(named[name] is not each for name, each in (keywords or {}).items()) if named else False
        values = self._globals(function, with_state)
        if not (changed or values):
            return function
        scope = {**function.__globals__, **values} if values else function.__globals__
        made = types.FunctionType(function.__code__, scope, function.__name__, given, tuple(cells))
        made.__kwdefaults__, made.__qualname__ = named, function.__qualname__
        made.__dict__.update(function.__dict__)
        for cell, own in zip(cells, function.__closure__ or (), strict=True):
            if cell is not own and own.cell_contents is function:
                cell.cell_contents = made
        self._functions[id(function)] = made
        return made

    def _globals(self, function: types.FunctionType, with_state: bool) -> dict[str, Any]:
        """Of the global names that it uses, those that refer to an original, with what they should be."""
        scope, found = function.__globals__, {}
        for name in _names(function.__code__):
            value = scope.get(name)
            if isinstance(value, nn.Module | types.MethodType | Tensor):
                own = value.__self__ if isinstance(value, types.MethodType) else value
                if isinstance(own, nn.Module) or id(own) in self._memo:
                    found[name] = self.rebound(value)
            elif isinstance(value, types.FunctionType) and value.__globals__ is scope:
                found[name] = self._function(value, with_state=False)
            elif with_state and type(value) in _STATE:
                found[name] = self._state(value)
        return {name: value for name, value in found.items() if value is not scope[name]}


@contextmanager
def originals_called(module: nn.Module, duplicate: nn.Module) -> Iterator[dict[str, nn.Module]]:
    """Context manager: inside, collects those modules of ``module`` with weights or buffers of their own that
    this thread calls and that are none of ``duplicate``'s, by name. Nothing is left behind."""
    own, thread = set(duplicate.modules()), threading.get_ident()
    originals = {each: name for name, each in module.named_modules() if each not in own}
    called = dict[str, nn.Module]()

    def note(each: nn.Module, inputs: Any) -> None:
        if each in originals and threading.get_ident() == thread and (each._parameters or each._buffers):
            called[originals[each]] = each

    hook = register_module_forward_pre_hook(note)
    try:
        yield called
    finally:
        hook.remove()


def _holds_modules(content: Any) -> bool:
    """Whether it is anything else than a container without modules."""
    if type(content) not in _STATE:
        return True
    items = content.values() if isinstance(content, dict) else content
    return any(isinstance(each, nn.Module) for each in items)


def _entries(holder: Any) -> list[tuple[Any, Any, Any]]:
    """The places in which ``holder`` keeps values: the container, the key and the value of each."""
    if isinstance(holder, dict):
        return [(holder, key, value) for key, value in holder.items()]
    if isinstance(holder, list):
        return [(holder, number, value) for number, value in enumerate(holder)]
    own = getattr(holder, "__dict__", None)
    found = [(own, key, value) for key, value in own.items()] if isinstance(own, dict) else []
    slots = _Slots(holder)
    return [*found, *((slots, name, getattr(holder, name)) for name in slots.names())]


class _Slots:
    """The attributes of an object that are no entries of its `__dict__`."""

    def __init__(self, holder: Any) -> None:
        self._holder = holder

    def names(self) -> list[str]:
        """Those that have a value."""
        kinds = [vars(kind) for kind in type(self._holder).__mro__ if "__slots__" in vars(kind)]
        members = [(name, each) for kind in kinds for name, each in kind.items()]
        slots = (name for name, each in members if isinstance(each, types.MemberDescriptorType))
        return [name for name in slots if hasattr(self._holder, name)]

    def __setitem__(self, name: str, value: Any) -> None:
        object.__setattr__(self._holder, name, value)  # also of a frozen dataclass


def _names(code: types.CodeType) -> set[str]:
    """The names that a function and those defined inside it may look up."""
    inside = [_names(each) for each in code.co_consts if isinstance(each, types.CodeType)]
    return set(code.co_names).union(*inside)
