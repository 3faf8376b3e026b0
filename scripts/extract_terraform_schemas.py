"""Write tests/terraform_schemas/ anew: of some terraform resources, what attributes and blocks their providers know.

The providers' own programs are not to be had from a package registry, but Terraform CDK's bindings are, and they were
made from the providers' schemas. They are large, so that the few resources that our modules use are extracted and
committed:

    pip download --no-deps --dest WHEELS cdktf-cdktf-provider-aws==21.22.1 \
        cdktf-cdktf-provider-google==16.12.1 cdktf-cdktf-provider-azurerm==14.23.1
    python scripts/extract_terraform_schemas.py WHEELS

What the bindings do not tell: whether blocks are a list or a set, what values are allowed, and for arguments other than
`id`, `name` and `project` whether a provider computes them if they are not given.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent.parent / "tests" / "terraform_schemas"
RESOURCES: Final = {
    "aws": [
        "cloudwatch_event_archive",
        "cloudwatch_event_bus",
        "cloudwatch_event_bus_policy",
        "cloudwatch_event_rule",
        "cloudwatch_event_target",
        "cloudwatch_metric_alarm",
        "iam_openid_connect_provider",
        "iam_role",
        "iam_role_policy",
        "kms_key",
        "sns_topic",
        "sqs_queue",
        "sqs_queue_policy",
        "sqs_queue_redrive_allow_policy",
        "data.cloudwatch_event_bus",
    ],
    "google": [
        "iam_workload_identity_pool",
        "iam_workload_identity_pool_provider",
        "monitoring_alert_policy",
        "pubsub_subscription",
        "pubsub_subscription_iam_member",
        "pubsub_topic",
        "pubsub_topic_iam_member",
        "data.project",
    ],
    "azurerm": [
        "eventgrid_namespace",
        "federated_identity_credential",
        "monitor_metric_alert",
        "role_assignment",
        "user_assigned_identity",
    ],
}
"""By provider, the resources that terraform/ uses; ``data.`` begins a data source."""
PROVIDERS: Final = {
    "aws": ["region", "profile", "access_key", "secret_key", "default_tags"],
    "google": ["project", "region", "user_project_override"],
    "azurerm": ["features", "subscription_id", "tenant_id", "use_oidc", "storage_use_azuread"],
}
"""By provider, what a `provider` block may say here: all of it would be longer than everything else."""
COMPUTED: Final = frozenset({"id", "name", "project"})
"""Arguments that a provider makes up if they are not given. More would let mocks invent values for what is unset."""
_LINK = re.compile(r"\{@link \S+#(\w+) ")


class Bindings:
    """The bindings of one provider, as jsii describes them."""

    def __init__(self, provider: str, wheel: Path) -> None:
        self.provider = provider
        with zipfile.ZipFile(wheel) as archive:
            inner = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
            package = archive.read(inner)
        with tarfile.open(fileobj=io.BytesIO(package)) as files:
            self.about = json.load(files.extractfile("package/package.json"))  # type: ignore[arg-type]
            self._types = json.load(files.extractfile("package/.jsii"))["types"]  # type: ignore[arg-type]

    def schema(self, names: list[str]) -> dict[str, Any]:
        """Return the resources and data sources, in the form that the stub provider reads."""
        found: dict[str, Any] = {
            "provider": self.provider,
            "version": self.about["cdktf"]["provider"]["version"],
            "configuration": self._configuration(),
            "resources": {},
            "data_sources": {},
        }
        for name in names:
            kind = "data_sources" if name.startswith("data.") else "resources"
            found[kind][f"{self.provider}_{name.removeprefix('data.')}"] = self._resource(name)
        return found

    def _configuration(self) -> dict[str, Any]:
        title = self.provider.capitalize()
        whole = self._block(f"@cdktf/provider-{self.provider}.provider.{title}ProviderConfig")
        kept = PROVIDERS[self.provider]
        return {part: {name: one for name, one in whole[part].items() if name in kept} for part in whole}

    def _resource(self, name: str) -> dict[str, Any]:
        words = name.replace(".", f"_{self.provider}_").split("_")
        camel = words[0] + "".join(word.capitalize() for word in words[1:])
        module = f"@cdktf/provider-{self.provider}.{camel}"
        title = camel[0].upper() + camel[1:]
        block = self._block(f"{module}.{title}Config")
        self._add_computed(block, f"{module}.{title}")
        return block

    def _add_computed(self, block: dict[str, Any], cls: str) -> None:
        """Add what only the provider says, such as an ARN."""
        for one in self._types.get(cls, {}).get("properties", ()):
            plain = _snake(one["name"])
            if one.get("static") or one["name"].endswith(("Input", "Internal")) or one["name"] == "fqn":
                continue
            known = plain in block["attributes"] or plain in block["blocks"]
            if not known and (kind := self._primitive(one["type"])) is not None:
                block["attributes"][plain] = {"type": kind, "computed": True}

    def _block(self, config: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for one in self._types[config].get("properties", ()):
            link = _LINK.search(json.dumps(one.get("docs", {})))
            if link is None:
                continue  # CDK's own: count, lifecycle and so on
            name, required = link[1], not one.get("optional", False)
            nested, single = self._nested(one["type"])
            if nested is not None:
                blocks[name] = {"single": single, "required": required, **self._block(nested)}
                self._add_computed(blocks[name], f"{nested}OutputReference")
            else:
                attributes[name] = {"type": self._primitive(one["type"]), "required": required}
                if name in COMPUTED and not required:
                    attributes[name]["computed"] = True
        return {"attributes": attributes, "blocks": blocks}

    def _nested(self, type_: dict[str, Any]) -> tuple[str | None, bool]:
        """Return the type of a block and whether there is at most one; None for an attribute."""
        if "union" in type_:
            options = [self._nested(one) for one in type_["union"]["types"]]
            return next((one for one in options if one[0] is not None), (None, False))
        if "collection" in type_:
            inner, _ = self._nested(type_["collection"]["elementtype"])
            return inner, False
        fqn = type_.get("fqn", "")
        return (fqn, True) if fqn.startswith("@cdktf/") and fqn in self._types else (None, False)

    def _primitive(self, type_: dict[str, Any]) -> Any:
        """Return a type in the form of cty's JSON; None for one that no attribute has."""
        if "primitive" in type_:
            return {"string": "string", "number": "number", "boolean": "bool"}.get(type_["primitive"])
        if "union" in type_:
            kinds = [kind for one in type_["union"]["types"] if (kind := self._primitive(one)) is not None]
            return kinds[0] if kinds else None
        if "collection" in type_:
            element = self._primitive(type_["collection"]["elementtype"])
            return (
                [{"array": "list", "map": "map"}[type_["collection"]["kind"]], element] if element else None
            )
        return {"cdktf.StringMap": ["map", "string"]}.get(type_.get("fqn", ""))


def _snake(camel: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", camel).lower()


def main(wheels: Path) -> None:
    """Write one file for each provider."""
    for provider, names in RESOURCES.items():
        wheel = next(wheels.glob(f"cdktf_cdktf_provider_{provider}-*.whl"))
        text = json.dumps(Bindings(provider, wheel).schema(names), indent=1, sort_keys=True)
        (FOLDER / f"{provider}.json").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
