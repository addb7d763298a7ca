"""Writes the schemas of the custom resources beside this file, from packages made out of those CRDs.

    pip install --no-deps --target packages kserve==0.21.0 cloudcoil==0.6.0 \\
        cloudcoil.models.keda==2.16.1.0 cloudcoil.models.prometheus-operator==0.80.1.0
    PYTHONPATH=packages python tests/contract/crds/derive.py packages

Not dependencies, for what is used here is small and the rest is large. KServe's package, generated from
the Go types that its CRDs are generated from, is read and not imported. Core types of Kubernetes are
references into the definitions that kubernetes-validate brings. All four packages are Apache-2.0.
"""

import ast
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PRIMITIVE = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "object": "object"}
CORE = "_definitions.json#/$defs/io.k8s.api.core.v1."


class KServe:
    """The classes of kserve.models as JSON schema definitions."""

    def __init__(self, models: Path) -> None:
        self.definitions: dict[str, Any] = {}
        self._models = models
        self._files = {each.stem.replace("_", ""): each for each in models.glob("*.py")}

    def reference(self, name: str) -> dict[str, Any]:
        """The schema of a type as openapi_types spells it; classes are read on first sight."""
        if name in PRIMITIVE:
            return {"type": PRIMITIVE[name]}
        if match := re.fullmatch(r"list\[(.*)\]", name):
            return {"type": "array", "items": self.reference(match[1])}
        if match := re.fullmatch(r"dict\(str, (.*)\)", name):
            return {"type": "object", "additionalProperties": self.reference(match[1])}
        if name == "ResourceQuantity":
            return {"type": ["string", "number"]}
        if name.lower() not in self._files:
            return {"$ref": CORE + name[2:]} if name.startswith("V1") else {}
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self._read(self._files[name.lower()])
        return {"$ref": f"#/definitions/{name}"}

    def _read(self, file: Path) -> dict[str, Any]:
        text = file.read_text("utf-8")
        (found,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
        tables = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in found.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Dict)
        }
        names: dict[str, str] = tables["attribute_map"]
        types: dict[str, str] = tables["openapi_types"]
        wanted = set(re.findall(r"client_side_validation and (\w+) is None", text))
        return {
            "type": "object",
            "additionalProperties": False,
            "required": sorted(names[each] for each in wanted),
            "properties": {names[each]: self.reference(types[each]) for each in names},
        }


def kserve(packages: Path, kind: str) -> dict[str, Any]:
    models = KServe(packages / "kserve" / "models")
    schema = models.reference(kind)
    models.definitions[kind]["properties"]["metadata"] = {"type": "object"}
    return {**schema, "definitions": models.definitions}


def cloudcoil(module: str, kind: str) -> dict[str, Any]:
    model = getattr(importlib.import_module(f"cloudcoil.models.{module}"), kind)
    schema: dict[str, Any] = strict(model.model_json_schema(by_alias=True))
    schema["properties"]["metadata"] = {"type": "object"}
    # Without the definitions that only the metadata had.
    text = json.dumps(schema)
    schema["$defs"] = {name: each for name, each in schema["$defs"].items() if f'/{name}"' in text}
    return schema


def strict(schema: Any) -> Any:
    """Without prose, and with no properties but those that are named."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: {name: strict(each) for name, each in value.items()}
        if key in ("properties", "$defs")
        else strict(value)
        for key, value in schema.items()
        if key not in ("title", "description", "default", "examples")
    }
    return {**kept, "additionalProperties": False} if "properties" in kept else kept


if __name__ == "__main__":
    packages = Path(sys.argv[1])
    for name, schema in {
        "ServingRuntime": kserve(packages, "V1alpha1ServingRuntime"),
        "InferenceService": kserve(packages, "V1beta1InferenceService"),
        "ScaledObject": cloudcoil("keda.v1alpha1", "ScaledObject"),
        "ServiceMonitor": cloudcoil("prometheus_operator.v1", "ServiceMonitor"),
        "PrometheusRule": cloudcoil("prometheus_operator.v1", "PrometheusRule"),
    }.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(schema, separators=(",", ":")) + "\n", "utf-8")
