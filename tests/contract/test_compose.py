"""What watches the service: compose.yaml, Prometheus and its alerts, Grafana and its dashboard."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.metrics import MetricWrapperBase

from service import metrics
from service.settings import Settings
from tests.conftest import ROOT, Server, free_port
from tests.contract.test_helm import CHART, of_kind
from tests.contract.test_kserve import RUNTIME

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/quietframe.json").read_text("utf-8"))
ALERTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text("utf-8"))[
    "groups"
][0]["rules"]
SCALER = of_kind(CHART / "ci" / "production.yaml", "ScaledObject")
TRIGGERS: list[str] = [each["metadata"]["query"] for each in SCALER["spec"]["triggers"]]
RULES: dict[str, Any] = of_kind(CHART / "ci" / "production.yaml", "PrometheusRule")["spec"]
RELEASE = {"namespace": "frames", "service": "quiet-quietframe"}
POD = of_kind(CHART / "ci" / "minimal.yaml", "Deployment")["spec"]["template"]["spec"]
GUIDE = (ROOT / "docs" / "operations.md").read_text("utf-8")
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
needs_prometheus = pytest.mark.skipif(
    not shutil.which("promtool") or not shutil.which("prometheus"),
    reason="Debian's package prometheus is not installed",
)


def test_compose_is_valid_and_gives_a_drain_its_time() -> None:
    tool = Path(sys.executable).parent / "check-jsonschema"
    command = [str(tool), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for name, service in COMPOSE["services"].items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in COMPOSE["volumes"] or source[0] == "/" or (DEPLOY / source).is_dir(), mount
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if name.startswith("quietframe"):
            assert int(service["stop_grace_period"].removesuffix("s")) >= Settings().grace_s + 5
            assert service["read_only"]
            assert {key.removeprefix("QUIETFRAME_").lower() for key in service["environment"]} <= {
                *Settings.model_fields
            }


def test_the_limit_of_memory_is_that_of_the_lanes() -> None:
    (asked,) = re.findall(r"So (\d+) GB for a worker of (\d+) lanes", GUIDE)
    service = COMPOSE["services"]["quietframe-cpu"]
    limit = service["deploy"]["resources"]["limits"]["memory"]
    assert (limit.removesuffix("g"), service["environment"].get("QUIETFRAME_LANES")) == asked


@pytest.mark.parametrize("spec", [POD, RUNTIME["spec"]], ids=["helm", "kserve"])
def test_a_pod_asks_for_the_memory_that_it_will_keep(spec: dict[str, Any]) -> None:
    (container,) = spec["containers"]
    asked = container["resources"]["requests"]
    settings = Settings(threads=int(asked["cpu"]))
    a_pixel, idle, supervisor = (
        int(re.findall(pattern, GUIDE)[0])
        for pattern in (
            r"A is (\d+) bytes a pixel",
            r"by `ps -o rss`: (\d+) MB",
            r"supervisor takes (\d+) MB",
        )
    )
    networks = (settings.lanes_per_worker + 1) * settings.max_tile_pixels * a_pixel
    kept = (idle + supervisor) * 1e6 + networks
    assert kept <= int(asked["memory"].removesuffix("Gi")) * 2**30


def exported() -> Iterator[str]:
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            for suffix in {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(
                family.type, [""]
            ):
                yield family.name + suffix


def test_panels_alerts_and_scalers_ask_for_series_that_we_export() -> None:
    asked = {
        name
        for expression in [*(query for _, query in QUERIES), *(alert["expr"] for alert in ALERTS), *TRIGGERS]
        for name in re.findall(r"quietframe_\w+", expression)
    }
    assert len(asked) >= 8
    assert asked <= set(exported())


def test_every_alert_has_its_page_in_the_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", (DEPLOY / "README.md").read_text("utf-8"), re.MULTILINE)
    names = [alert["alert"] for alert in ALERTS]
    assert [name for name in headings if name.startswith("Quietframe")] == names
    for alert in ALERTS:
        assert alert["annotations"]["runbook"] == f"deploy/README.md#{alert['alert'].lower()}"


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    register_default_plugins()
    kept = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert lost(DASHBOARD, kept) == []


def lost(ours: Any, kept: Any, path: str = "") -> list[str]:
    """Where `kept` has not what `ours` has; it may have more."""
    if isinstance(ours, dict):
        inside = [
            lost(value, kept[key], f"{path}.{key}") if key in kept else [f"{path}.{key}"]
            for key, value in ours.items()
        ]
    elif isinstance(ours, list):
        inside = [lost(*pair, f"{path}[]") for pair in zip(ours, kept, strict=True)]
    else:
        return [] if ours == kept else [path]
    return [each for found in inside for each in found]


def test_the_alerts_of_a_release_are_of_its_series_alone() -> None:
    ours = ",".join(f'{name}="{value}"' for name, value in RELEASE.items())
    (group,) = RULES["groups"]
    for rule, plain in zip(group["rules"], ALERTS, strict=True):
        asked = re.findall(r"\b(?:up|quietframe_\w+)\b([^}]*)", rule["expr"])
        assert asked
        assert all(each.startswith(f"{{{ours}") for each in asked), rule["expr"]
        jobless = plain["expr"].replace('job="quietframe"', "")  # a ServiceMonitor may name it otherwise
        assert rule["expr"].replace(f"{ours},", "").replace(f"{{{ours}}}", "") == jobless
        assert rule == {**plain, "expr": rule["expr"], "labels": {**plain["labels"], **RELEASE}}


@needs_prometheus
@pytest.mark.parametrize("down", ["frames", "staging"])
def test_a_release_that_is_down_is_reported_by_its_own_alert(down: str, tmp_path: Path) -> None:
    series = [
        {
            "series": f'up{{job="quietframe", namespace="{each}", service="quiet-quietframe", instance="a"}}',
            "values": "0x10" if each == down else "1x10",
        }
        for each in ("frames", "staging")
    ]
    alert = {"exp_labels": {"severity": "critical", **RELEASE}, "exp_annotations": ALERTS[0]["annotations"]}
    expected = {
        "eval_time": "5m",
        "alertname": "QuietframeDown",
        "exp_alerts": [alert] if down == "frames" else [],
    }
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(RULES))
    test = {"interval": "1m", "input_series": series, "alert_rule_test": [expected]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [test]}))
    command = ["promtool", "test", "rules", "test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("test", "rules", "alerts.test.yml")],
    ids=["config", "alerts"],
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    command = ["promtool", *arguments]
    done = subprocess.run(
        command, cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def prometheus(server: Server, tmp_path: Path) -> Iterator[str]:
    """Prometheus with our configuration, but for the address of the service and the pace."""
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    job = config["scrape_configs"][0]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{server.port}"]}]
    config["scrape_configs"] = [job]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(DEPLOY / "prometheus/alerts.yml", tmp_path)
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"]
    with subprocess.Popen([*command, f"--web.listen-address={address}"], cwd=tmp_path) as process:
        try:
            yield f"http://{address}/api/v1"
        finally:
            process.terminate()


@needs_prometheus
def test_prometheus_scrapes_the_service(server: Server, prometheus: str) -> None:
    photograph = (ROOT / "docs" / "noisy.jpg").read_bytes()
    for _ in range(60):
        httpx.post(f"{server.url}/v1/denoise", content=photograph, timeout=60).raise_for_status()
        httpx.post(f"{server.url}/v1/denoise", content=b"no image")
        if answers(prometheus, 'increase(quietframe_requests_total{reason="ok"}[10s])'):
            break
        time.sleep(0.5)
    assert answers(prometheus, 'up{job="quietframe"} == 1')
    absent = {"Memory", "Processor", "Refused model versions"}  # of the container; none was refused
    for title, query in QUERIES:
        expression = query.replace("$instance", ".*").replace("$__rate_interval", "10s")
        result = answers(prometheus, expression.replace("$__range", "10m"))
        assert bool(result) == (title not in absent), (title, query)
    for trigger in TRIGGERS:
        assert len(answers(prometheus, re.sub(r'namespace="\w+",service="[\w-]+"', "", trigger))) == 1, (
            trigger
        )
    groups = httpx.get(f"{prometheus}/rules").json()["data"]["groups"]
    states = {rule["name"]: (rule["health"], rule["state"]) for rule in groups[0]["rules"]}
    assert states == {alert["alert"]: ("ok", "inactive") for alert in ALERTS}


def answers(prometheus: str, query: str) -> list[dict[str, Any]]:
    try:
        response = httpx.get(f"{prometheus}/query", params={"query": query}, timeout=10)
    except httpx.ConnectError:
        return []  # still starting
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return []  # reading its log
    answer = response.json()
    assert answer["status"] == "success", (query, answer)
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result
