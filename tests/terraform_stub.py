"""A terraform provider that knows its resources' attributes and blocks, and can do nothing with them.

It serves schemas of `tests/terraform_schemas/`, which is enough for `terraform validate`, and for `terraform test` with
mock providers: names, types, blocks, required arguments and references are checked; values are not, for the real
providers' rules for those are in their programs. Terraform is told of it by TF_REATTACH_PROVIDERS and starts no program
of its own.

Source of the protocol: https://github.com/hashicorp/terraform/blob/main/docs/plugin-protocol/tfplugin6.proto
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

SCHEMAS = Path(__file__).parent / "terraform_schemas"
SERVICE = "tfplugin6.Provider"
LIST = 2


def schema(provider: str) -> dict[str, Any]:
    """Return what is known of a provider."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{provider}.json").read_text("utf-8"))
    return found


@contextmanager
def stub_providers(sources: dict[str, str]) -> Iterator[dict[str, str]]:
    """Serve providers by their source, such as ``hashicorp/google``; give the environment that terraform needs."""
    servers, found = [], {}
    for source, provider in sources.items():
        server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((_Handler(_response(schema(provider))),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        address = {"Network": "tcp", "String": f"127.0.0.1:{port}"}
        found[source] = {
            "Protocol": "grpc",
            "ProtocolVersion": 6,
            "Pid": os.getpid(),
            "Test": True,
            "Addr": address,
        }
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps(found)}
    finally:
        for server in servers:
            server.stop(None).wait()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers with the schema, and otherwise with an empty message: whatever was asked is right."""

    def __init__(self, schema: bytes) -> None:
        self._schema = schema

    def service(self, details: Any) -> Any:
        _, service, method = details.method.split("/")
        if service != SERVICE:
            return None
        answer = self._schema if method == "GetProviderSchema" else b""
        return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)


# --- protobuf, as far as it takes ---------------------------------------------------------------------------------


def _response(about: dict[str, Any]) -> bytes:
    parts = [_message(1, _schema(about["configuration"]))]
    for number, kind in ((2, "resources"), (3, "data_sources")):
        for name, block in about[kind].items():
            parts.append(_message(number, _message(1, name.encode()) + _message(2, _schema(block))))
    return b"".join(parts)


def _schema(block: dict[str, Any]) -> bytes:
    return _message(2, _block(block))


def _block(block: dict[str, Any]) -> bytes:
    parts = [_message(2, _attribute(name, one)) for name, one in block["attributes"].items()]
    for name, one in block["blocks"].items():
        # A block of which there is one at most is a list with one element, as in the providers that we use.
        limits = _number(4, int(one.get("required", False))) + _number(5, int(one["single"]))
        nested = _message(1, name.encode()) + _message(2, _block(one)) + _number(3, LIST) + limits
        parts.append(_message(3, nested))
    return b"".join(parts)


def _attribute(name: str, one: dict[str, Any]) -> bytes:
    required, computed = bool(one.get("required")), bool(one.get("computed"))
    optional = not required and (not computed or "required" in one)  # else the provider alone says it
    parts = [_message(1, name.encode()), _message(2, json.dumps(one["type"]).encode())]
    parts += [_number(4, required), _number(5, optional), _number(6, computed)]
    return b"".join(parts)


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(int(value)) if value else b""


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
