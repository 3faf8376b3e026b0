"""terraform in the tests: the modules in a folder of their own, and the providers that are at hand.

CROSSBUS_TERRAFORM_MIRROR names a filesystem mirror of providers; the AWS provider in it is used as it is. All others
are stubs that know the schemas, see `tests/terraform_stub.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.terraform_stub import schema, stub_providers

ROOT = Path(__file__).resolve().parent.parent
TERRAFORM = ROOT / "terraform"
MODULES = ("eventbridge", "eventgrid", "pubsub")
EXAMPLES = sorted(str(path.parent.relative_to(TERRAFORM)) for path in TERRAFORM.glob("examples/**/main.tf"))
MIRROR = os.environ.get("CROSSBUS_TERRAFORM_MIRROR", "")
SOURCES = {
    "hashicorp/aws": "aws",
    "hashicorp/google": "google",
    "hashicorp/azurerm": "azurerm",
    "azure/azapi": "azapi",
}
LIMIT = 300
"""Seconds that one command of terraform may take."""

needs_terraform = pytest.mark.skipif(
    shutil.which("terraform") is None, reason="terraform is not installed: install it to check terraform/"
)
needs_aws_provider = pytest.mark.skipif(
    not MIRROR, reason="CROSSBUS_TERRAFORM_MIRROR names no mirror with the AWS provider"
)


def level() -> list[str]:
    """Say, for people, against what each provider was checked."""
    if shutil.which("terraform") is None:
        return ["terraform is not installed: nothing of terraform/ was checked"]
    found = []
    for source, name in SOURCES.items():
        version = schema(name)["version"]
        how = f"its schema of {version}, without the provider: names, types and references"
        if name == "aws" and MIRROR:
            how = f"the provider itself, {aws_version()}; and its schema of {version}"
        found.append(f"{source}: checked against {how}")
    return [*found, "no cloud was reached"]


def aws_version() -> str:
    """Return the version of the AWS provider in the mirror."""
    found = sorted(path.name for path in Path(MIRROR).glob("*/hashicorp/aws/*") if path.is_dir())
    assert found, "CROSSBUS_TERRAFORM_MIRROR has no */hashicorp/aws/VERSION"
    return found[-1]


class Ran:
    """How a command of terraform ended."""

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output

    @property
    def messages(self) -> list[str]:
        """What is wrong, of a command that was run with ``-json``."""
        found = []
        for line in self.output.splitlines():
            diagnostic = json.loads(line).get("diagnostic") if line.startswith("{") else None
            if diagnostic is not None:
                found.append(f"{diagnostic['summary']}: {diagnostic['detail']}")
        return found


class Terraform:
    """A copy of terraform/, and the environment in which terraform finds its providers."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TF_", "AWS_"))},
            **environment,
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
        }

    def run(self, where: str, *command: str, limit: float = LIMIT) -> Ran:
        """Run terraform in a folder of the copy; it is ended when it takes too long."""
        done = subprocess.run(
            ["terraform", *command],
            cwd=self.folder / where,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
        )
        return Ran(done.returncode, done.stdout)

    def ok(self, where: str, *command: str, limit: float = LIMIT) -> str:
        """Run terraform, which must succeed, and return what it said."""
        ran = self.run(where, *command, limit=limit)
        assert ran.code == 0, ran.output
        return ran.output

    def init(self, where: str) -> None:
        """Prepare a folder."""
        self.ok(where, "init", "-no-color", "-input=false", "-backend=false")


@contextmanager
def terraform(folder: Path, *, real_aws: bool) -> Iterator[Terraform]:
    """Copy terraform/ and serve the providers: nothing that terraform writes gets into the project."""
    shutil.copytree(TERRAFORM, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    settings = folder / "terraform.rc"
    mirror = f'filesystem_mirror {{\n    path    = "{MIRROR}"\n    include = ["hashicorp/aws"]\n  }}'
    settings.write_text(f"provider_installation {{\n  {mirror if real_aws else ''}\n}}\n", "utf-8")
    stubs = {source: name for source, name in SOURCES.items() if not (real_aws and name == "aws")}
    with stub_providers(stubs) as environment:
        yield Terraform(folder, {**environment, "TF_CLI_CONFIG_FILE": str(settings)})


def evaluate_topology(folder: Path, module: str, topology: dict[str, Any]) -> list[str]:
    """Return what the variable `topology` of a module refuses, without the rest of the module and its providers."""
    for name in ("topology.tf", "limits.tf"):
        shutil.copy(TERRAFORM / "modules" / module / name, folder / name)
    (folder / "topology.auto.tfvars.json").write_text(json.dumps({"topology": topology}), "utf-8")
    ran = Terraform(folder, {"TF_CLI_CONFIG_FILE": os.devnull}).run("", "plan", "-json", "-input=false")
    found = [message.partition("\n\nThis was checked")[0] for message in ran.messages]
    assert (ran.code == 0) is not bool(found), ran.output
    return [
        line for message in found for line in message.removeprefix("Invalid value for variable: ").split("\n")
    ]
