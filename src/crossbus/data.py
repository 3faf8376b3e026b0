"""The data of an event: encoding to JSON when an event is made, decoding into the type that a handler asks for."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from crossbus.attributes import is_utf8
from crossbus.errors import DataError, InvalidEvent

__all__ = [
    "checked_json",
    "decode_json_data",
    "decode_typed",
    "encode_json_data",
    "is_json",
    "is_json_tolerant",
    "loads_tolerant",
    "same_json",
    "typed_decoder",
]

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.json.Decoder().decode
_validate = msgspec.json.Decoder(msgspec.Raw).decode


def encode_json_data(data: Any) -> bytes:
    """Encode data as JSON text in UTF-8.

    Raises `InvalidEvent` for what JSON cannot hold: NaN, infinities, lone surrogates, keys that are neither text nor
    numbers, objects that contain themselves, types that have no JSON form.
    """
    try:
        payload = _encode(data)
    except Exception:
        return _encode_carefully(data)
    # The encoder writes NaN and infinities as null. Only then is a closer look needed.
    if payload.rfind(b"null") != -1 and _may_hold_nan(data):
        return _encode_carefully(data)
    return payload


def checked_json(payload: bytes) -> bytes:
    """Return bytes that are JSON text already. Raises `InvalidEvent` if they are not."""
    if not is_json(payload):
        raise InvalidEvent(
            "data is bytes that are not JSON text in UTF-8, but the content type is JSON; pass an object, or another "
            "datacontenttype",
            attribute="data",
        )
    return payload


def _may_hold_nan(data: Any) -> bool:
    """Tell at the speed of C that data holds no NaN and no infinity; True means that it must be looked through.

    MessagePack writes a float as 0xCB and eight bytes, and those of NaN and infinities begin with 0x7F or 0xFF.
    """
    try:
        packed = _pack(data)
    except Exception:
        return True
    # find and rfind, because `in` first tries to read its left side as a number, and is slower than both.
    return packed.find(b"\xcb") != -1 and (packed.rfind(b"\xcb\x7f") != -1 or packed.rfind(b"\xcb\xff") != -1)


def _encode_carefully(data: Any) -> bytes:
    try:
        return _encode(_plain(data, "data"))
    except InvalidEvent:
        raise
    except RecursionError:
        problem = "is nested too deep, or contains itself"
    except UnicodeEncodeError:
        problem = "holds text that is not UTF-8: a lone surrogate"
    except Exception as error:
        problem = f"cannot be written as JSON: {error}"
    raise InvalidEvent(f"data {problem}", attribute="data")


def _plain(data: Any, path: str) -> Any:
    """Bring data into dicts, lists and scalars, or say where and why that cannot be done."""
    if data is None or isinstance(data, bool):
        return data
    if isinstance(data, str):
        return str.__str__(data)
    if isinstance(data, int):
        return int(data)
    if isinstance(data, float):
        if not math.isfinite(data):
            raise InvalidEvent(
                f"{path} is {float(data)}: JSON has no NaN and no infinities", attribute="data"
            )
        return float(data)
    if isinstance(data, Mapping):
        return {_plain_key(key, path): _plain(value, f"{path}[{key!r:.60}]") for key, value in data.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [_plain(value, f"{path}[{index}]") for index, value in enumerate(data)]
    if hasattr(type(data), "__pydantic_serializer__"):
        return _plain_model(data, path)
    try:
        made = msgspec.to_builtins(data, builtin_types=())
    except RecursionError:
        raise
    except Exception:
        made = _fields(data, path)
    return _plain(made, path)


def _plain_model(model: Any, path: str) -> Any:
    written = model.model_dump_json()
    if not model.model_config.get("ser_json_inf_nan"):
        _refuse_nan(model.model_dump(warnings=False), path)  # by default pydantic writes NaN as null
    return _decode(written)


def _refuse_nan(data: Any, path: str) -> None:
    if isinstance(data, float):
        _plain(data, path)
    elif isinstance(data, Mapping):
        for key, value in data.items():
            _refuse_nan(value, f"{path}[{key!r:.60}]")
    elif isinstance(data, (list, tuple, set, frozenset)):
        for index, value in enumerate(data):
            _refuse_nan(value, f"{path}[{index}]")


def _plain_key(key: Any, path: str) -> Any:
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, (bool, type(None))) or (isinstance(key, float) and not math.isfinite(key)):
        raise InvalidEvent(f"{path} has the key {key!r}: JSON keys are strings", attribute="data")
    return int(key) if isinstance(key, int) else float(key) if isinstance(key, float) else _plain(key, path)


def _fields(data: Any, path: str) -> dict[str, Any]:
    """Return the fields of a dataclass or Struct that holds something which only `_plain` can read."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    raise InvalidEvent(f"{path} is {type(data).__name__}, which JSON cannot hold", attribute="data")


def is_json(payload: bytes) -> bool:
    """Tell whether bytes are one JSON value in UTF-8, without lone surrogates."""
    try:
        _validate(payload)
    except (msgspec.DecodeError, RecursionError):
        return False
    return is_utf8(payload)


def is_json_tolerant(payload: bytes) -> bool:
    """Tell whether bytes that arrived are one JSON value in UTF-8. A lone surrogate, escaped, is no obstacle."""
    if is_json(payload):
        return True
    try:  # numbers are left as they are: Python refuses to convert thousands of digits, JSON has no limit
        json.loads(payload.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def loads_tolerant(payload: bytes) -> Any:
    """Decode any JSON text, also with lone surrogates or numbers beyond a float.

    Raises ValueError or RecursionError.
    """
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(payload.decode("utf-8"), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def same_json(a: bytes, b: bytes) -> bool:
    """Tell whether two JSON texts hold the same: whatever the spacing, the escapes and the order of members.

    An integer is never the same as a float, as 1 and 1.0: the difference survives a round trip, and is noticed.
    """
    try:
        return bool(_exactly(a) == _exactly(b))
    except (ValueError, RecursionError):  # what cannot be decoded is the same only byte by byte
        return False


def _exactly(payload: bytes) -> Any:
    # A tuple equals no list, so that neither True and 1 nor 1 and 1.0 are equal, anywhere in the value.
    return json.loads(
        payload.decode("utf-8"),
        parse_int=lambda text: ("int", int(text)),
        parse_float=lambda text: ("float", float(text)),
    )


def decode_json_data(payload: bytes) -> Any:
    """Decode JSON text. Raises `DataError`."""
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return loads_tolerant(payload)
    except RecursionError:
        raise DataError("data is nested too deep to decode") from None
    except ValueError as error:
        raise DataError(f"data is not JSON: {error}") from None


def decode_typed(payload: bytes, kind: int, type: type[T]) -> T:
    """Decode a payload of a `DataKind` into a type. Raises `DataError` if it does not fit."""
    return cast(T, typed_decoder(cast(Any, type))(payload, kind))


@functools.lru_cache(maxsize=512)
def typed_decoder(type: Any) -> Any:
    """Return the function `(payload, kind) -> value` that decodes into a type.

    Raises `TypeError` for a type that data cannot be decoded into.
    """
    if type is bytes:
        return lambda payload, kind: payload
    if type is str:
        return _decode_str
    if hasattr(type, "__pydantic_validator__"):
        return _pydantic_decoder(type)
    decoder = msgspec.json.Decoder(type)
    if (strange := _strange(type)) is not None:
        raise TypeError(f"{strange.__name__} has no form in JSON that is known")
    name = getattr(type, "__name__", str(type))
    decode = decoder.decode

    def decode_into(payload: bytes, kind: int) -> Any:
        try:
            return decode(payload)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if kind == 0:
                raise DataError(f"there is no data to make a {name} of") from None
            raise DataError(f"data does not fit {name}: {error}") from None

    return decode_into


def _strange(type: Any) -> Any:
    """Return a class within a type that msgspec takes only because it knows nothing of it; None if there is none."""
    from msgspec import inspect  # here: slow to import, and needed only where handlers are declared

    pending, seen = [inspect.type_info(type)], set[int]()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))  # types may hold themselves
        if isinstance(node, inspect.CustomType) and node.cls is not object:
            return node.cls
        for part in node.__struct_fields__:
            value = getattr(node, part)
            for child in value if isinstance(value, tuple) else (value,):
                if isinstance(child, inspect.Type):
                    pending.append(child)
                elif isinstance(child, inspect.Field) and child.required:
                    pending.append(child.type)
    return None


def _decode_str(payload: bytes, kind: int) -> str:
    if kind == 1:
        value = decode_json_data(payload)
        if isinstance(value, str):
            return value
        raise DataError(f"data is JSON but no string: it holds {type(value).__name__}")
    if kind == 0:
        raise DataError("there is no data to make a str of")
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"data is not text in UTF-8: {error}") from None


def _pydantic_decoder(model: Any) -> Any:
    def decode_into(payload: bytes, kind: int) -> Any:
        try:
            return model.__pydantic_validator__.validate_json(payload)
        except ValueError as error:  # pydantic's ValidationError is one
            if kind == 0:
                raise DataError(f"there is no data to make a {model.__name__} of") from None
            # The message without the input: it may be anything that a stranger sent.
            found = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'data'}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False)  # type: ignore[attr-defined]
            )
            raise DataError(f"data does not fit {model.__name__}: {found}") from None

    return decode_into
