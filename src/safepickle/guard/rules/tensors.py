"""The built-in list, torch: storages, tensors and parameters.

Sizes, strides and offsets are held against the storage before torch sees them. Needs no torch: the same figures serve
`safepickle.inspect` where torch is not installed.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any, Final

from safepickle.guard.limits import EXPANDED, LimitExceeded, Malformed, Refusal
from safepickle.guard.rules.base import (
    DATA,
    Grant,
    Rule,
    RuleContext,
    ValueInfo,
    allocate,
    count_elements,
    expect,
    hold_count,
    is_size,
    sizes,
)
from safepickle.guard.rules.copies import ALL
from safepickle.guard.sparse import rebuild_checked

_ITEM_SIZES: Final = {
    1: "bool uint8 int8 qint8 quint8 quint4x2 quint2x4 bits8 bits1x8 bits2x4 bits4x2 float8_e4m3fn float8_e4m3fnuz "
    "float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2",
    2: "bfloat16 float16 half int16 short uint16 bits16",
    4: "float32 float int32 int uint32 qint32 complex32 chalf",
    8: "float64 double int64 long uint64 complex64 cfloat",
    16: "complex128 cdouble",
}
_STORAGES: Final = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "QInt32Storage": "qint32",
    "QInt8Storage": "qint8",
    "QUInt2x4Storage": "quint2x4",
    "QUInt4x2Storage": "quint4x2",
    "QUInt8Storage": "quint8",
    "ShortStorage": "int16",
}
_ALIASES: Final = {
    "half": "float16", "short": "int16", "float": "float32", "int": "int32", "chalf": "complex32", "double": "float64",
    "long": "int64", "cfloat": "complex64", "cdouble": "complex128",
}  # fmt: skip
_ITEMSIZE: Final = {name: size for size, names in _ITEM_SIZES.items() for name in names.split()}
_LAYOUTS: Final = tuple(
    f"torch.{name}" for name in ["strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"]
)
_QSCHEMES: Final = ("per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
                    "per_channel_affine_float_qparams")  # fmt: skip
DEVICE: Final = re.compile(r"(?:cpu|cuda|mps|meta|xpu|hpu|xla|mtia)(?::(?:\d|[1-9]\d|1[01]\d|12[0-7]))?", re.ASCII)
TYPED: Final = "typed"
"""The layout of storages that know the type of their elements, as torch's own files give them."""

_VERSION_LENGTH: Final = 100
_INTERNAL: Final = ("_backward", "_post_acc", "_grad", "_base", "_c")
_SETTABLE: Final = (
    "data grad requires_grad names real imag name volatile grad_dtype H T mH mT base is_leaf shape dtype device layout"
)


def is_float(dtype: str) -> bool:
    """Tell whether tensors of a dtype may require gradients."""
    return dtype.startswith(("float", "bfloat", "complex"))


def _storage(context: RuleContext, storage: object, *, typed: bool) -> ValueInfo:
    info = context.info(storage)
    if info is None or info.kind != "storage":
        raise Refusal("its first argument is no storage of this file")
    if (info.layout == TYPED) != typed:
        raise Refusal(f"its first argument is {'no ' if typed else 'a '}storage that knows the type of its elements")
    return info


def _tensor(
    context: RuleContext,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    dtype: ValueInfo | None = None,
    *,
    typed: bool = True,
    quantized: bool = False,
) -> ValueInfo:
    """Hold a view of a storage against it."""
    backing = _storage(context, storage, typed=typed)
    element = backing if dtype is None else dtype
    if element.dtype.startswith("q") != quantized:
        raise Refusal("a quantized tensor has a rebuild function of its own")
    shape, steps = sizes(size, "size of the tensor"), sizes(stride, "stride of the tensor")
    if len(shape) != len(steps) or not is_size(offset):
        raise Malformed("the size, stride and offset of the tensor do not fit together")
    count = count_elements(shape)
    if count:
        last = offset + sum((length - 1) * step for length, step in zip(shape, steps, strict=True))
        if backing.nbytes is not None and (last + 1) * element.itemsize > backing.nbytes:
            raise Malformed(
                f"the tensor reaches element {last:,} of a storage of {backing.nbytes:,} bytes "
                f"({element.dtype}, {element.itemsize} bytes each)"
            )
        if backing.nbytes is not None and count > EXPANDED and count * element.itemsize > backing.nbytes:
            raise LimitExceeded(f"the tensor shows its storage again and again, as {count:,} elements")
    elif backing.nbytes is not None and offset * element.itemsize > backing.nbytes:
        raise Malformed("the offset of the tensor lies outside its storage")
    return ValueInfo("tensor", element.dtype, element.itemsize, count * element.itemsize, shape, filled=backing.filled)


def _gradient(info: ValueInfo, requires_grad: object, hooks: object = None) -> ValueInfo:
    if type(requires_grad) is not bool:
        raise Refusal("requires_grad is not a bool")
    if requires_grad and not is_float(info.dtype):
        raise Malformed(f"a tensor of {info.dtype} cannot require gradients")
    if hooks is not None and not (type(hooks) in (OrderedDict, dict) and not hooks):
        raise Refusal("the tensor carries hooks, which are code that runs later")
    return info


def _metadata(value: object) -> None:
    if value is not None and (
        type(value) is not dict
        or not value.keys() <= {"conj", "neg"}
        or not all(type(bit) is bool for bit in value.values())
    ):
        raise Refusal("the metadata of the tensor is more than its conj and neg bits")


def _check_bits(info: ValueInfo, metadata: Any) -> None:
    _metadata(metadata)
    if metadata and metadata.get("conj") and not info.dtype.startswith("complex"):
        raise Malformed("the conj bit is for complex tensors")


def _rebuild_tensor(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 4)
    return _tensor(context, *arguments)


def _rebuild_tensor_v2(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 6, 7)
    info = _gradient(_tensor(context, *arguments[:4]), *arguments[4:6])
    _check_bits(info, arguments[6] if len(arguments) == 7 else None)
    return info


def _rebuild_tensor_v3(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 7, 8)
    storage, offset, size, stride = arguments[:4]
    info = _gradient(_tensor(context, storage, offset, size, stride, _dtype(context, arguments[6])), *arguments[4:6])
    if arguments[4]:
        raise Malformed("torch makes no tensor that requires gradients by this function")
    _check_bits(info, arguments[7] if len(arguments) == 8 else None)
    return info


def _dtype(context: RuleContext, value: object) -> ValueInfo:
    info = context.info(value)
    if info is None or info.kind != "torch dtype":
        raise Refusal("a torch dtype was expected")
    return info


def _known(context: RuleContext, value: object) -> ValueInfo:
    info = context.info(value)
    if info is None or info.kind != "tensor":
        raise Refusal("a tensor of this file was expected")
    return info


def _parameter(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 3)
    return _gradient(_known(context, arguments[0]), *arguments[1:])


def _new_parameter(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 2)
    return _gradient(_known(context, arguments[0]), arguments[1])


def _parameter_with_state(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 4)
    _python_attributes(arguments[3])
    return _gradient(_known(context, arguments[0]), *arguments[1:3])


def _make_parameter_with_state(data: object, requires_grad: bool, hooks: object, state: object) -> Any:
    """Build a parameter and its attributes, with none of which torch would run a property."""
    from torch._utils import _rebuild_parameter

    parameter = _rebuild_parameter(data, requires_grad, hooks)
    parameter.__dict__.update(_python_attributes(state))
    return parameter


def _python_attributes(state: object) -> dict[str, Any]:
    """Judge and return attributes of a tensor: none may be one of the tensor's own."""
    if type(state) is tuple and len(state) == 2 and (state[1] is None or (type(state[1]) is dict and not state[1])):
        state = state[0]
    if state is None:
        return {}
    if type(state) is not dict or not all(type(name) is str for name in state):
        raise Refusal("the state of the tensor is not a dict of attributes")
    for name in state:
        if name[:2] == "__" or name in _SETTABLE.split() or name.startswith(_INTERNAL):
            raise Refusal(f"the state would set the tensor's own attribute {name!r}")
    return state


def _from_type(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo | None:
    """Judge ``_rebuild_from_type_v2(func, new_type, args, state)``: a rebuild function on this list."""
    hold_count(arguments, 4)
    function, cls, inner, state = arguments
    if type(function) is not Grant or ("torch._utils", function.name) not in RULES or type(inner) is not tuple:
        raise Refusal("the function that it calls is no rebuild function of torch's")
    grant = context.grant(cls)
    if grant is None or (grant.listed == "built-in" and grant.name not in ("Tensor", "Parameter", "Buffer")):
        raise Refusal("its class is no tensor that is allowed")
    _python_attributes(state)
    return function.rule.check(context, inner)


def _make_from_type(function: Grant, cls: Any, inner: Any, state: object) -> Any:
    from torch import Tensor

    made = (function.rule.make or function.target)(*inner)
    if type(made) is not cls:
        made = made.as_subclass(cls)
    if cls.__setstate__ is not Tensor.__setstate__:
        made.__setstate__(state)
    else:
        made.__dict__.update(_python_attributes(state))
    return made


def _sparse(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    if len(arguments) != 2 or type(arguments[1]) not in (tuple, list):
        raise Refusal("it is not called as torch writes it")
    layout = context.info(arguments[0])
    if layout is None or layout.kind != "layout":
        raise Refusal("its first argument is no layout")
    data = tuple(arguments[1])
    coordinates = layout.layout == "torch.sparse_coo"
    if len(data) not in ((3, 4) if coordinates else (4,)):
        raise Refusal("the parts of the sparse tensor are not those of its layout")
    indices = [_known(context, part) for part in data[: 1 if coordinates else 2]]
    values = _known(context, data[1 if coordinates else 2])
    if not all(part.dtype in ("int64", "int32") and part.layout == "strided" for part in indices):
        raise Malformed("the indices of the sparse tensor are not integers")
    if values.layout != "strided" or values.dtype.startswith("q"):
        raise Malformed("the values of the sparse tensor are no plain tensor")
    # Checking the indices goes through all of them, and makes copies on the way.
    allocate(context, 4 * sum(part.nbytes or 0 for part in (*indices, values)))
    if coordinates and len(data) == 4 and type(data[3]) not in (bool, type(None)):
        raise Refusal("is_coalesced is not a bool")
    shape = _size(context, data[2 if coordinates else 3])
    count_elements(shape)
    found = indices[0].shape
    if coordinates and (len(found) != 2 or found[0] > len(shape) or found[1:] != values.shape[:1]):
        raise Malformed("the indices and values of the sparse tensor do not fit together")
    return ValueInfo("tensor", values.dtype, values.itemsize, values.nbytes, shape, layout.layout, filled=values.filled)


def _size(context: RuleContext, value: object) -> tuple[int, ...]:
    info = context.info(value)
    if info is not None and info.kind == "size":
        return info.shape
    return sizes(tuple(value) if type(value) is list else value, "size of the tensor")


def _make_sparse(layout: object, data: object) -> Any:
    """Build a sparse tensor with its indices checked, or note it for the check after the storages are read."""
    return rebuild_checked(layout, data)


def _quantized(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 7)
    info = _gradient(_tensor(context, *arguments[:4], quantized=True), *arguments[5:7])
    # A tensor of that size is made first, before it is laid over the storage.
    backing = _storage(context, arguments[0], typed=True)
    if info.nbytes is not None and backing.nbytes is not None and info.nbytes > backing.nbytes:
        raise LimitExceeded("the quantized tensor shows its storage again and again")
    if info.nbytes is not None and info.nbytes > 1 << 24:
        context.spend(info.nbytes >> 4)
    scheme = arguments[4]
    if type(scheme) is not tuple or not scheme:
        raise Refusal("the quantizer of the tensor is malformed")
    named = context.info(scheme[0])
    if named is None or named.kind != "qscheme":
        raise Refusal("the quantizer of the tensor is malformed")
    if named.dtype == "per_tensor_affine":
        expect(scheme[1:], float, int)
        if not -(1 << 31) <= scheme[2] < 1 << 31:
            raise Malformed("the zero point of the quantizer is out of range")
    elif named.dtype in ("per_channel_affine", "per_channel_affine_float_qparams"):
        if len(scheme) != 4 or type(scheme[3]) is not int or not 0 <= scheme[3] < len(info.shape):
            raise Malformed("the quantizer of the tensor has an axis that the tensor lacks")
        _check_channels(context, scheme, info, floats=named.dtype != "per_channel_affine")
    else:
        raise Refusal("the quantizer of the tensor is malformed")
    return info


def _check_channels(context: RuleContext, scheme: tuple[Any, ...], info: ValueInfo, *, floats: bool) -> None:
    """Judge the scale and the zero point of each channel: torch reads them at once."""
    scales, points = _known(context, scheme[1]), _known(context, scheme[2])
    for part, dtypes in (
        (scales, ("float32", "float64")),
        (points, ("float32", "float64") if floats else ("int32", "int64")),
    ):
        if part.shape != (info.shape[scheme[3]],) or part.layout != "strided" or part.dtype not in dtypes:
            raise Malformed("the quantizer of the tensor does not fit its shape")
        if not part.filled:
            raise Refusal("the quantizer of the tensor would be read before the file's storages are")
        allocate(context, 2 * (part.nbytes or 0))


def _meta(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 4)
    dtype = _dtype(context, arguments[0])
    if dtype.dtype.startswith("q"):
        raise Refusal("a quantized tensor has a rebuild function of its own")
    shape, stride = sizes(arguments[1], "size of the tensor"), sizes(arguments[2], "stride of the tensor")
    count_elements(shape)
    reach = 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=False) if length)
    if len(shape) != len(stride) or reach * dtype.itemsize >= 1 << 62:
        raise Malformed("the size and stride of the tensor do not fit together")
    return _gradient(ValueInfo("tensor", dtype.dtype, dtype.itemsize, 0, shape, "meta"), arguments[3])


def _from_cpu(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 4)
    source, dtype = _known(context, arguments[0]), _dtype(context, arguments[1])
    _check_device(arguments[2])
    if source.layout != "strided" or not source.filled or source.dtype.startswith("q") or dtype.dtype.startswith("q"):
        raise Refusal("it moves what is no plain tensor, or is not read yet")
    nbytes = count_elements(source.shape) * dtype.itemsize
    allocate(context, nbytes)
    return _gradient(ValueInfo("tensor", dtype.dtype, dtype.itemsize, nbytes, source.shape), arguments[3])


def _check_device(text: object) -> None:
    if type(text) is not str or DEVICE.fullmatch(text) is None:
        raise Refusal("the device is not one that torch writes")


def _device(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    expect(arguments, str, int, least=1)
    _check_device(arguments[0])
    if len(arguments) == 2 and (":" in arguments[0] or not 0 <= arguments[1] < 128):
        raise Malformed("the index of the device is out of range")
    return ValueInfo("device")


def _torch_size(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    expect(arguments, (tuple, list), least=0)
    return ValueInfo("size", shape=sizes(tuple(arguments[0]) if arguments else (), "size"))


def _layout(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    expect(arguments, str)
    if arguments[0] not in _LAYOUTS:
        raise Refusal("the layout is not one that torch writes")
    return ValueInfo("layout", layout=arguments[0])


def _nested_storage(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    """Judge the bytes of a torch file inside the pickle: they hold one storage, and are loaded under this guard."""
    length = context.length(arguments[0]) if len(arguments) == 1 else -1
    if length is None or length < 0:
        raise Refusal("its argument is not bytes")
    context.spend(length)
    info: ValueInfo = context.nested(arguments[0])
    return info


def _own_storage(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 1, 2)
    length = context.length(arguments[0])
    if length is not None and length < 0:
        raise Refusal("the bytes of the storage are no bytes")
    if len(arguments) == 2:
        _check_device(arguments[1])
    # What is read-only, or lies badly, is copied.
    allocate(context, length or 0)
    return ValueInfo("storage", "uint8", 1, length)


def _own_typed_storage(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 2)
    backing, element = _storage(context, arguments[0], typed=False), _named_dtype(arguments[1])
    return ValueInfo("storage", element.dtype, element.itemsize, backing.nbytes, layout=TYPED)


def _named_dtype(name: object) -> ValueInfo:
    if type(name) is not str or name not in _ITEMSIZE:
        raise Refusal("the dtype is not one of torch's")
    return ValueInfo("torch dtype", _ALIASES.get(name, name), _ITEMSIZE[name])


def _own_tensor(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    if not 5 <= len(arguments) <= 8 or not all(type(flag) is bool for flag in arguments[5:]):
        raise Refusal("it is not called as safepickle writes it")
    storage, dtype, offset, size, stride = arguments[:5]
    info = _tensor(context, storage, offset, size, stride, dtype=_named_dtype(dtype), typed=False)
    if any(arguments[6:7]) and not info.dtype.startswith("complex"):
        raise Malformed("the conj bit is for complex tensors")
    return _gradient(info, arguments[5] if len(arguments) > 5 else False)


def _own_attributes(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    if len(arguments) != 2 or type(arguments[1]) is not dict:
        raise Refusal("it is not called as safepickle writes it")
    _known(context, arguments[0])
    _python_attributes(arguments[1])


def _version(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    expect(arguments, str)
    if len(arguments[0]) > _VERSION_LENGTH:
        raise LimitExceeded(f"the version has more than {_VERSION_LENGTH} characters: comparing it takes it apart")
    return ValueInfo("text")


_DTYPES: Final = {
    name: Rule(data=True, info=ValueInfo("torch dtype", _ALIASES.get(name, name), size))
    for name, size in _ITEMSIZE.items()
}
_STORAGE_RULES: Final = {
    name: Rule(data=True, info=ValueInfo("storage type", dtype, _ITEMSIZE[dtype])) for name, dtype in _STORAGES.items()
}
_UNTYPED: Final = Rule(data=True, info=ValueInfo("storage type", "uint8", 1))
_REBUILD: Final = {
    "_rebuild_tensor": Rule(_rebuild_tensor),
    "_rebuild_tensor_v2": Rule(_rebuild_tensor_v2),
    "_rebuild_tensor_v3": Rule(_rebuild_tensor_v3),
    "_rebuild_parameter": Rule(_parameter),
    "_rebuild_parameter_with_state": Rule(_parameter_with_state, _make_parameter_with_state, reads=(0, 0, ALL, 0)),
    "_rebuild_sparse_tensor": Rule(_sparse, _make_sparse),
    "_rebuild_qtensor": Rule(_quantized),
    "_rebuild_meta_tensor_no_storage": Rule(_meta),
    "_rebuild_device_tensor_from_cpu_tensor": Rule(_from_cpu),
}

RULES: Final[dict[tuple[str, str], Rule]] = {
    **{("torch._utils", name): rule for name, rule in _REBUILD.items()},
    **{("torch", name): rule for name, rule in _DTYPES.items()},
    **{("torch", name): rule for name, rule in _STORAGE_RULES.items()},
    **{("torch.cuda", name): rule for name, rule in _STORAGE_RULES.items()},
    **{("torch", name): Rule(data=True, info=ValueInfo("qscheme", name)) for name in _QSCHEMES},
    ("torch", "UntypedStorage"): _UNTYPED,
    ("torch.storage", "UntypedStorage"): _UNTYPED,
    ("torch.storage", "_load_from_bytes"): Rule(_nested_storage),
    ("torch._tensor", "_rebuild_from_type_v2"): Rule(_from_type, _make_from_type, reads=(0, 0, ALL, 0), functions=True),
    ("torch", "Tensor"): DATA,
    ("torch._tensor", "Tensor"): DATA,
    ("torch.nn.parameter", "Parameter"): Rule(_new_parameter, data=True),
    ("torch.nn.parameter", "Buffer"): DATA,
    ("torch", "Size"): Rule(_torch_size, data=True),
    ("torch", "device"): Rule(_device, data=True),
    ("torch.serialization", "_get_layout"): Rule(_layout),
    ("safepickle.rebuild", "rebuild_torch_storage"): Rule(_own_storage),
    ("safepickle.rebuild", "rebuild_torch_typed_storage"): Rule(_own_typed_storage),
    ("safepickle.rebuild", "rebuild_torch_tensor"): Rule(_own_tensor),
    ("safepickle.rebuild", "rebuild_torch_parameter"): Rule(_own_tensor),
    ("safepickle.rebuild", "rebuild_torch_attributes"): Rule(_own_attributes, reads=(0, 1)),
    ("torch.torch_version", "TorchVersion"): Rule(_version, data=True),
}
