"""The chart: what it renders is what Kubernetes and its operators take, and wrong values are named."""

import functools
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource

from service.settings import Settings
from tests.conftest import ROOT

CHART = ROOT / "deploy" / "helm" / "quietframe"
CASES = sorted((CHART / "ci").glob("*.yaml"))
KUBERNETES = ("1.27.0", "1.37.0")  # the oldest that Chart.yaml allows, and the newest that can be checked
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def helm(command: str, *arguments: str | Path, chart: Path = CHART) -> "subprocess.CompletedProcess[str]":
    tool = Path(sys.executable).parent / "helm"
    name = ("quiet",) if command == "template" else ()
    return subprocess.run(
        [tool, command, *name, chart, *arguments], capture_output=True, text=True, check=False
    )


@functools.cache
def rendered(case: Path) -> list[dict[str, Any]]:
    done = helm("template", "--values", case, "--namespace", "frames")
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def of_kind(case: Path, kind: str) -> dict[str, Any]:
    (found,) = (each for each in rendered(case) if each["kind"] == kind)
    return found


def validate(document: dict[str, Any], version: str = KUBERNETES[-1]) -> None:
    """Against the schema of its kind, strictly: an unknown field is an error."""
    crd = Path(__file__).parent / "crds" / f"{document['kind']}.json"
    if not crd.exists():
        kubernetes_validate.validate(document, version, strict=True)
        return
    Draft7Validator(json.loads(crd.read_text("utf-8")), registry=core_types()).validate(document)


@functools.cache
def core_types() -> Registry[Any]:
    file = SCHEMAS / f"v{KUBERNETES[-1]}-local-strict" / "_definitions.json"
    definitions = Resource.from_contents(json.loads(file.read_text("utf-8")))
    registry: Registry[Any] = definitions @ Registry().with_resource("_definitions.json", definitions)
    return registry


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_is_rendered_is_valid(case: Path) -> None:
    for document in rendered(case):
        for version in KUBERNETES:
            validate(document, version)


def test_helm_lints_every_case() -> None:
    done = helm("lint", "--strict", *(argument for case in CASES for argument in ("--values", case)))
    assert done.returncode == 0, done.stdout


def test_an_unknown_field_would_be_found() -> None:
    """What the tests above rest on."""
    for kind in ("Deployment", "ScaledObject", "ServiceMonitor"):
        document = json.loads(json.dumps(of_kind(CHART / "ci" / "production.yaml", kind)))
        document["spec"]["selectorr"] = {}
        with pytest.raises(Exception, match="selectorr"):
            validate(document)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_service_takes_the_environment_and_has_the_time_to_drain(
    case: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pod = of_kind(case, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).touch()
    for each in container["env"]:
        if "value" in each:
            monkeypatch.setenv(each["name"], each["value"].replace("/tls/", f"{tmp_path}/"))
            assert not re.fullmatch(r"[0-9.]+e\+[0-9]+", each["value"])  # as Helm writes large numbers
    settings = Settings()
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert (settings.port, settings.grpc_port, settings.host) == (ports["http"], ports["grpc"], "0.0.0.0")
    assert (settings.device == "cuda") == ("nvidia.com/gpu" in container["resources"]["limits"])
    assert settings.grace_s >= settings.timeout_s
    assert sum(each["name"] == "QUIETFRAME_THREADS" for each in container["env"]) == 1
    wait = math.ceil(float(container["lifecycle"]["preStop"]["exec"]["command"][1]))
    assert pod["terminationGracePeriodSeconds"] >= wait + max(settings.timeout_s, settings.grace_s) + 5
    unready = container["readinessProbe"]["periodSeconds"] * container["readinessProbe"]["failureThreshold"]
    assert wait + settings.drain_delay_s >= unready  # who polls instead of listening has seen it too


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_pod_may_do_nothing_but_serve(case: Path) -> None:
    pod = of_kind(case, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]  # a service `quietframe` would set QUIETFRAME_PORT
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")] == ["/tmp"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("settings.max_pixel=3", "settings: Additional property max_pixel"),
        ("settings.max_side=99999", "settings.max_side"),
        ("settings.grace_s=1", "settings: Additional property grace_s"),
        ("environment.QUIETFRAME_PORT=1", "environment"),
        ("settings.workers=4", "give settings.threads, too"),
        ("service.grpc=443", "service: Additional property grpc"),
        ("replica=3", "Additional property replica"),
        ("preStop=soon", "preStop"),
        ("grace=0", "grace"),
        ("device=tpu", "device"),
        ("image.digest=sha256:1", "image.digest"),
        ("modelStore.source=pvc", "modelStore.claimName"),
        ("ingress.enabled=true", "ingress.host"),
        ("podDisruptionBudget.maxUnavailable=0", "podDisruptionBudget.maxUnavailable"),
        ("autoscaler.kind=vpa", "autoscaler.kind"),
        ("settings.workers=2,settings.threads=1,settings.model_control=true", "reaches one worker only"),
        (
            f"settings.max_body_bytes={Settings().max_buffered_bytes + 1}",
            "make it at least settings.max_body_bytes",
        ),
        (
            f"settings.max_buffered_bytes={Settings().max_body_bytes - 1}",
            "make it at least settings.max_body_bytes",
        ),
        ("grace=5,timeout=5,drainDelay=10", "drainDelay is part of grace"),
        ("autoscaler.kind=keda", "set serviceMonitor.enabled=true"),
        ("prometheusRule.enabled=true", "set serviceMonitor.enabled=true"),
        ("autoscaler.minReplicas=11", "autoscaler.minReplicas is larger than autoscaler.maxReplicas"),
    ],
)
def test_a_wrong_value_is_named(wrong: str, said: str) -> None:
    done = helm("template", "--set", wrong)
    assert done.returncode != 0
    assert said in done.stderr


def test_who_is_cut_off_by_the_network_policy_is_told(tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "chart")
    (chart / "templates/NOTES.txt").rename(chart / "notes.txt")  # Helm shows it to clusters only
    (chart / "templates/notes.yaml").write_text(
        '{kind: Notes, text: {{ tpl (.Files.Get "notes.txt") . | quote }}}'
    )

    def notes(values: str) -> str:
        done = helm("template", "--show-only", "templates/notes.yaml", "--set", values, chart=chart)
        assert done.returncode == 0, done.stderr
        return str(yaml.safe_load(done.stdout)["text"])

    shut = "set networkPolicy.from to where the"
    assert "networkPolicy" not in notes("service.type=ClusterIP")
    assert f"{shut} load balancer" in notes("service.type=LoadBalancer")
    assert f"{shut} ingress controller" in notes("ingress.enabled=true,ingress.host=a.example.com")
    assert "set networkPolicy.metricsFrom" in notes("serviceMonitor.enabled=true")
    anyone = "networkPolicy.from[0].ipBlock.cidr=0.0.0.0/0"
    assert "networkPolicy" not in notes(f"service.type=LoadBalancer,serviceMonitor.enabled=true,{anyone}")


def test_the_schema_knows_the_settings_of_the_service() -> None:
    """`python deploy/helm/settings_schema.py` writes it anew."""
    script = ROOT / "deploy/helm/settings_schema.py"
    names: dict[str, Any] = {"__name__": "settings_schema", "__file__": str(script)}
    exec(compile(script.read_text("utf-8"), script, "exec"), names)
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    assert schema["properties"]["settings"] == names["settings_schema"]()


def test_alerts_do_not_depend_on_the_job_that_a_servicemonitor_names() -> None:
    done = helm("template", "--set", "prometheusRule.enabled=true,serviceMonitor.own=true")
    (rule,) = (each for each in yaml.safe_load_all(done.stdout) if each["kind"] == "PrometheusRule")
    expressions = [each["expr"] for group in rule["spec"]["groups"] for each in group["rules"]]
    assert not [each for each in expressions if "job=" in each]
    assert sum("up{namespace=" in each for each in expressions) == 2
