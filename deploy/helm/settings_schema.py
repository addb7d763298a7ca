"""Writes the settings of service/settings.py into the chart's values.schema.json.

`python deploy/helm/settings_schema.py`, after each change of a setting.
"""

import json
from pathlib import Path
from typing import Any

from service.settings import Settings

SCHEMA = Path(__file__).parent / "quietframe" / "values.schema.json"
# Values of the chart's own: what else must agree with them is derived from the same place.
FIXED = {"host", "port", "grpc_port", "device", "drain_delay_s", "grace_s", "timeout_s"}
FIXED |= {"tokens", "tls_cert", "tls_key", "model_store", "poll_models_s"}
KEPT = ("type", "enum", "items", "minimum", "maximum", "exclusiveMinimum", "description")


def settings_schema() -> dict[str, Any]:
    """Names, types and bounds; a name that is not here is refused."""
    properties = Settings.model_json_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {key: properties[name][key] for key in KEPT if key in properties[name]}
            for name in sorted(properties.keys() - FIXED)
        },
    }


if __name__ == "__main__":
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["properties"]["settings"] = settings_schema()
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n", "utf-8")
