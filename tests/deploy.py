"""What deploy/ is for, by the tools that read it: the Helm chart linted and rendered by Helm's own library, its objects
compared with Kubernetes' schemas, rules by promtool; the compose file laid over one like Chatwoot's by docker-compose; the
settings of both by the program.

    python3 tests/deploy.py anteroom
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/anteroom"
COMPOSE = ROOT / "deploy/compose.yaml"
COMPOSE_REPLICAS = ROOT / "deploy/compose.replicas.yaml"
BALANCER = ROOT / "deploy/haproxy.cfg"
# The oldest that Chart.yaml allows, and the newest there is a schema for.
KUBERNETES = ["1.25.0", kubernetes_validate.latest_version()]

# What deploy/compose.yaml is laid over: the part of Chatwoot's file that it is about.
CHATWOOT = """
version: "3"
services:
  rails:
    image: chatwoot/chatwoot:latest
    ports: ["127.0.0.1:3000:3000"]
    environment: [RAILS_ENV=production]
  sidekiq:
    image: chatwoot/chatwoot:latest
"""

UPSTREAM = {"upstreamUrl": "http://chatwoot.chatwoot.svc:3000"}
# Nobody's: the settings are looked at, no connection is made.
CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
EVERYTHING = UPSTREAM | {
    "replicaCount": 2,
    "replicas": {"redis": "rediss://anteroom@redis.chatwoot.svc:6380/1", "cutOff": "refuse", "ca": CA},
    "secrets": {
        "adminToken": "hush-hush",
        "webhookSecrets": ["one", "two"],
        "replicasSecret": "0123456789abcdef" * 4,
        "redisPassword": "hush",
    },
    "ingress": {"enabled": True, "className": "nginx", "host": "chat.test", "tlsSecret": "chat-tls"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "runbookPrefix": "https://git.test/anteroom/"},
    "dashboard": {"enabled": True},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"disk": "none"},
    "settings": '[cache]\nttl = "20s"\n',
}
EXISTING = UPSTREAM | {
    "replicaCount": 2,
    "replicas": {"redis": "redis://redis:6379"},
    "secrets": {
        "existing": "mine",
        "adminTokenKey": "token",
        "webhookSecretKeys": ["chatwoot"],
        "replicasSecretKey": "fleet",
        "redisPasswordKey": "redis",
    },
    "podDisruptionBudget": {"enabled": False},
}
# Each with a part of what is to be said of it.
REFUSED = [
    ({}, "upstreamUrl"),
    ({"upstreamUrl": "chat.example.com"}, "upstreamUrl"),
    (UPSTREAM | {"replica": 2}, "replica"),
    (UPSTREAM | {"replicaCount": 0}, "replicaCount"),
    (UPSTREAM | {"replicas": 2}, "replicas"),
    (UPSTREAM | {"replicas": {"redis": "redis://h"}}, "replicasSecret"),
    (UPSTREAM | {"replicas": {"redis": "redis://h"}, "secrets": {"replicasSecret": "short"}}, "replicasSecret"),
    (UPSTREAM | {"replicas": {"redis": "h:6379"}}, "redis"),
    (UPSTREAM | {"secrets": {"existing": "mine", "adminToken": "hush-hush"}}, "adminToken"),
    (UPSTREAM | {"secrets": {"adminTokenKey": "token"}}, "adminTokenKey"),
]


def render(values, name="front"):
    """Every object by kind and name."""
    with helm.Chart.load(ARCHIVE) as chart:
        rendered = chart.render(values, name=name, namespace="chat")
    texts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    objects = [it for text in texts for it in yaml.safe_load_all(text) if it]
    named = {(it["kind"], it["metadata"]["name"]): it for it in objects}
    assert len(named) == len(objects), "two objects of one name"
    return named


def container_of(objects, name="front-anteroom"):
    [container] = objects["Deployment", name]["spec"]["template"]["spec"]["containers"]
    return container


def environment(objects):
    return {it["name"]: it["value"] for it in container_of(objects)["env"]}


def linted():
    for values in (UPSTREAM, EVERYTHING, EXISTING):
        findings = helm.lint(ARCHIVE, values=values, strict=True)
        found = [it for it in findings["messages"] if it["severity"] > 1]  # 1 is a remark
        assert not found, found


def refused():
    for values, part in REFUSED:
        try:
            render(values)
        except helm.HelmError as error:
            assert part in str(error), (part, str(error))
        else:
            raise AssertionError(f"taken: {values}")


def kubernetes():
    for values in (UPSTREAM, EVERYTHING, EXISTING):
        for it in render(values).values():
            if it["apiVersion"].startswith("monitoring.coreos.com/"):
                continue  # The operator's, of which there is no schema at hand.
            for version in KUBERNETES:
                kubernetes_validate.validate(it, version, strict=True)
    assert ("Service", "anteroom-admin") in render(UPSTREAM, "anteroom"), "a name that has it already is enough"
    objects = render(EVERYTHING)
    pod = objects["Deployment", "front-anteroom"]["spec"]["template"]
    # What finds what: by label, and by the name of a port.
    ports = {it["name"]: it["containerPort"] for it in container_of(objects)["ports"]}
    for service in (it for (kind, _), it in objects.items() if kind == "Service"):
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert all(it["targetPort"] in ports for it in service["spec"]["ports"])
    monitor = objects["ServiceMonitor", "front-anteroom"]["spec"]
    watched = [
        name
        for (kind, name), it in objects.items()
        if kind == "Service" and monitor["selector"]["matchLabels"].items() <= it["metadata"]["labels"].items()
    ]
    assert watched == ["front-anteroom-admin"], watched
    public = objects["Service", "front-anteroom"]["spec"]["ports"]
    assert [it["targetPort"] for it in public] == ["http"], "the private listener is not published"
    for probe, path in (("livenessProbe", "/live"), ("readinessProbe", "/ready")):
        assert container_of(objects)[probe]["httpGet"] == {"path": path, "port": "admin"}
    mounts = {it["name"] for it in container_of(objects)["volumeMounts"]}
    assert mounts == {it["name"] for it in pod["spec"]["volumes"]}


def telling(folder):
    """Rules and dashboard are those of dashboards/."""
    objects = render(EVERYTHING)
    rules = objects["PrometheusRule", "front-anteroom"]["spec"]
    file = folder / "rules.yml"
    file.write_text(yaml.safe_dump(rules))
    subprocess.run(["promtool", "check", "rules", file], check=True, stdout=subprocess.DEVNULL)
    original = (ROOT / "dashboards/anteroom.rules.yml").read_text()
    runbooks = original.replace("runbook_url: docs/", "runbook_url: https://git.test/anteroom/docs/")
    assert rules == yaml.safe_load(runbooks), "the rules are those of dashboards/"
    [relabeling] = objects["ServiceMonitor", "front-anteroom"]["spec"]["endpoints"][0]["relabelings"]
    assert relabeling["targetLabel"] == "job" and f'job="{relabeling["replacement"]}"' in original
    dashboard = objects["ConfigMap", "front-anteroom-dashboard"]["data"]["anteroom.json"]
    assert json.loads(dashboard) == json.loads((ROOT / "dashboards/anteroom.json").read_text())


def settings_of(program, variables, *arguments):
    """What the program makes of them."""
    env = {name: it for name, it in os.environ.items() if not name.startswith("ANTEROOM_")} | variables
    told = subprocess.run([program, "config", *arguments], env=env, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return told.stdout


def obeyed(program, folder):
    """The program reads what the chart tells it, with the secrets where the pod has them."""
    for values, token, secrets in ((EVERYTHING, "hush-hush", ["one", "two"]), (EXISTING, None, None), (UPSTREAM, "", [])):
        objects = render(values)
        variables = environment(objects)
        assert ("ANTEROOM_ADMIN__TOKEN" in variables) == (token != "")
        assert ("ANTEROOM_WEBHOOK__SECRETS" in variables) == (secrets != [])
        run_secrets = folder / "secrets"
        run_secrets.mkdir(exist_ok=True)
        own = {"admin-token", "webhook-secret-0", "webhook-secret-1", "replicas-secret", "redis-password"}
        for key in own | {"token", "chatwoot", "fleet", "redis"}:
            (run_secrets / key).write_text("hush-hush" * 4)
        if secrets:
            assert set(objects["Secret", "front-anteroom"]["data"]) == own
        file = folder / "anteroom.toml"
        file.write_text(objects["ConfigMap", "front-anteroom"]["data"]["anteroom.toml"])
        there = {name: it.replace("/run/secrets/anteroom", str(run_secrets)) for name, it in variables.items()}
        if "ANTEROOM_REPLICAS__CA_FILE" in there:
            ca = pathlib.PurePath(there["ANTEROOM_REPLICAS__CA_FILE"])
            assert str(ca.parent) == "/etc/anteroom" and values["replicas"]["ca"] == CA
            there["ANTEROOM_REPLICAS__CA_FILE"] = str(folder / ca.name)
            (folder / ca.name).write_text(objects["ConfigMap", "front-anteroom"]["data"][ca.name])
        told = settings_of(program, there, "--config", file)
        assert 'url = "http://chatwoot.chatwoot.svc:3000"' in told, told
        shared = values.get("replicas")
        assert ("ANTEROOM_REPLICAS__SECRET" in variables) == (shared is not None)
        if shared:
            assert f'redis = "{shared["redis"]}"' in told and f'cut_off = "{shared.get("cutOff", "pass")}"' in told, told
            assert "password_file" in told and ("ca_file" in told) == ("ca" in shared), told


def composed(program, folder):
    """Laid over Chatwoot's file, without a change to what is there."""
    (folder / "docker-compose.yaml").write_text(CHATWOOT)
    files = ["--file", "docker-compose.yaml", "--file", COMPOSE]
    ask = ["docker-compose", *files, "config"]
    token = {"ANTEROOM_ADMIN__TOKEN": "hush-hush"}
    without = subprocess.run(ask, cwd=folder, env=os.environ | {"ANTEROOM_ADMIN__TOKEN": ""}, capture_output=True, text=True)
    assert without.returncode != 0 and "ANTEROOM_ADMIN__TOKEN" in without.stderr, without
    merged = yaml.safe_load(subprocess.run(ask, cwd=folder, env=os.environ | token, check=True, capture_output=True).stdout)
    services = merged["services"]
    assert services["rails"]["ports"] and set(services) == {"rails", "sidekiq", "anteroom"}
    told = settings_of(program, services["anteroom"]["environment"])
    assert 'url = "http://rails:3000"' in told and "172.16.0.0/12" in told, told
    published = [str(it) for it in services["anteroom"]["ports"]]
    assert all(it.startswith("127.0.0.1:") for it in published), "on this host alone"


def composed_replicas(program, folder):
    """The same with two replicas, which differ in nothing but where their status pages are, and a balancer that knows them."""
    ask = ["docker-compose", "--file", "docker-compose.yaml", "--file", COMPOSE_REPLICAS, "config"]
    given = {"ANTEROOM_ADMIN__TOKEN": "hush-hush", "ANTEROOM_REPLICAS__SECRET": "x" * 32, "ANTEROOM_DEPLOY": str(BALANCER.parent)}
    for name in given:
        without = subprocess.run(ask, cwd=folder, env=os.environ | given | {name: ""}, capture_output=True, text=True)
        assert without.returncode != 0 and name in without.stderr, without
    merged = yaml.safe_load(subprocess.run(ask, cwd=folder, env=os.environ | given, check=True, capture_output=True).stdout)
    services = merged["services"]
    first, second = services["anteroom-1"], services["anteroom-2"]
    assert first | {"ports": None} == second | {"ports": None}
    told = settings_of(program, first["environment"])
    assert 'redis = "redis://anteroom-redis:6379"' in told, told
    published = [str(it) for service in services.values() for it in service.get("ports", [])]
    assert published and all(it.startswith("127.0.0.1:") for it in published), "on this host alone"
    assert merged["networks"]["anteroom"]["internal"] and set(services["anteroom-redis"]["networks"]) == {"anteroom"}
    [mounted] = services["anteroom"]["volumes"]
    assert str(mounted).split(":")[0] == str(BALANCER), mounted
    # As it stands, but that its servers have an address here.
    there = BALANCER.read_text().replace("anteroom-1:", "127.0.0.1:").replace("anteroom-2:", "127.0.0.1:")
    (folder / "haproxy.cfg").write_text(there)
    subprocess.run(["haproxy", "-c", "-q", "-f", "haproxy.cfg"], cwd=folder, check=True)


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    linted()
    refused()
    kubernetes()
    with tempfile.TemporaryDirectory() as folder:
        telling(pathlib.Path(folder))
        obeyed(program, pathlib.Path(folder))
        composed(program, pathlib.Path(folder))
        composed_replicas(program, pathlib.Path(folder))
    print(f"deploy/ is well: Helm {helm.helm_sdk_version()}, Kubernetes {' and '.join(KUBERNETES)}")


with tempfile.TemporaryDirectory() as packaged:
    # As it is handed out: with the files that its links lead to.
    ARCHIVE = helm.package(CHART, destination=packaged)
    main()
