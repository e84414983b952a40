"""What `cargo xtask lint` asks of deploy/: `deploy.py CHECK ROOT [KUBECTL]`.

Prints one line for each thing to mend, and nothing when there is none. Everything is rendered
here, by Helm's own library and by kubectl; no cluster is asked.
"""

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import yaml

NAMESPACE = "bulkhead-system"
# Labels that only a chart has.
OF_HELM = ("app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "helm.sh/chart")
# What the chart leaves to `helm install --create-namespace`.
ONLY_IN_BASE = {("v1", "Namespace", "", NAMESPACE)}
# The oldest and the newest Kubernetes that the schemas know.
OLDEST, NEWEST = "1.25", "1.37"
# Kinds that came later than the oldest.
SINCE = {"ValidatingAdmissionPolicy": "1.30", "ValidatingAdmissionPolicyBinding": "1.30"}
# Kinds of cert-manager, whose schemas are not Kubernetes'.
WITHOUT_SCHEMA = {"Certificate", "Issuer"}

# Overlays, and the values with which the chart says the same.
EPHEMERAL = {"controller": {"storage": {"persistent": False}}}
CERT_MANAGER = {
    "controller": {"disruptionBudget": True},
    "tls": {"certManager": {"enabled": True}},
}
OVERLAYS = {"overlays/ephemeral": EPHEMERAL, "overlays/cert-manager": CERT_MANAGER}
# Everything that can be said at once.
EVERYTHING = {
    "images": {"repository": "registry.example/b", "tag": "v9", "pullSecrets": ["one", "two"]},
    "controller": {
        "replicas": 3,
        "storage": {"size": "1Gi", "className": "fast"},
        "disruptionBudget": True,
        "resources": {"requests": {"cpu": 1}},
    },
    "agent": {
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "nodeSelector": {"a": "b"},
        "maxUnavailable": "10%",
        "nriSocket": "/run/other/nri.sock",
        "kubepodsRoot": "/sys/fs/cgroup/kubelet/kubepods",
        "resources": {"limits": {"memory": "1Gi"}},
    },
    "tls": {"existingSecret": "mine"},
    "operators": {"serviceAccount": {"name": "other"}},
    "admission": {"enabled": True},
    "criticalPodsQuota": {"enabled": True},
}
# Values that must be refused, and a word of the refusal.
REFUSED = {
    "replicas without a common CA": ({"controller": {"replicas": 2}}, "need one CA"),
    "two sources of a certificate": (
        {"tls": {"existingSecret": "a", "certManager": {"enabled": True}}},
        "exclude each other",
    ),
    "a misspelt value": ({"controler": {"replicas": 1}}, "controler"),
    "no replica": ({"controller": {"replicas": 0}}, "replicas"),
}


def objects(text):
    """The objects in some YAML."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [one for one in yaml.load_all(text, loader) if one]


def key(one):
    meta = one["metadata"]
    return (one["apiVersion"], one["kind"], meta.get("namespace", ""), meta["name"])


def told(of):
    return " ".join(part for part in of[1:] if part)


@lru_cache(maxsize=None)
def _chart(deploy, values, namespace):
    from helm_python.chart import Chart

    with Chart.load(f"{deploy}/helm/bulkhead") as chart:
        chart.validate_schema(json.loads(values))
        rendered = chart.render(json.loads(values), name="bulkhead", namespace=namespace)
        definitions = [one["data"] for one in chart.crds]
    texts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    return texts, definitions


def chart(deploy, values, namespace=NAMESPACE):
    """The chart's objects by key, without what only Helm adds."""
    texts, definitions = _chart(str(deploy), json.dumps(values), namespace)
    found = {}
    for one in [one for text in texts + definitions for one in objects(text)]:
        if key(one) in found:
            raise ValueError(f"the chart has two of {told(key(one))}")
        labels = one["metadata"].get("labels", {})
        for label in OF_HELM:
            labels.pop(label, None)
        found[key(one)] = one
    return found


def by_kubectl(kubectl, directory):
    """A kustomization's objects."""
    command = [kubectl, "kustomize", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{directory.name} cannot be rendered: {done.stderr.strip()}")
    return {key(one): one for one in objects(done.stdout)}


def by_hand(directory):
    """The same for one that only lists files and directories: no kubectl is needed."""
    said = objects((directory / "kustomization.yaml").read_text())[0]
    unknown = set(said) - {"apiVersion", "kind", "bases", "resources"}
    if unknown:
        raise ValueError(f"{directory.name}/kustomization.yaml is more than a list: {unknown}")
    found = {}
    for base in said.get("bases", []):
        found.update(by_hand((directory / base).resolve()))
    for file in said.get("resources", []):
        found.update((key(one), one) for one in objects((directory / file).read_text()))
    return found


def differences(ours, theirs, path=""):
    """Where two values differ: paths, with what each says."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(set(ours) | set(theirs)):
            yield from differences(ours.get(name), theirs.get(name), f"{path}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, (one, other) in enumerate(zip(ours, theirs)):
            yield from differences(one, other, f"{path}[{at}]")
    elif ours != theirs:
        yield f"{path}: {json.dumps(ours)} and, in the chart, {json.dumps(theirs)}"


def compared(what, manifests, of_chart):
    manifests = {at: one for at, one in manifests.items() if at not in ONLY_IN_BASE}
    for at in sorted(set(manifests) - set(of_chart)):
        yield f"{what} has {told(at)}, and the chart has not"
    for at in sorted(set(of_chart) - set(manifests)):
        yield f"the chart has {told(at)}, and {what} has not"
    for at in sorted(set(manifests) & set(of_chart)):
        for difference in differences(manifests[at], of_chart[at]):
            yield f"{what}, {told(at)}{difference}"


def check_chart(deploy, _kubectl):
    """The chart says what the base says, and refuses what it should."""
    base = by_hand(deploy / "base")
    yield from compared("base", base, chart(deploy, {}))
    admission = base | by_hand(deploy / "admission")
    yield from compared("admission", admission, chart(deploy, {"admission": {"enabled": True}}))
    elsewhere = chart(deploy, EVERYTHING, "elsewhere")
    for at, one in elsewhere.items():
        if one["kind"] != "CustomResourceDefinition" and NAMESPACE in json.dumps(one):
            yield f"the chart in another namespace: {told(at)} names {NAMESPACE}"
    for what, (values, word) in REFUSED.items():
        try:
            chart(deploy, values)
            yield f"the chart takes {what}"
        except Exception as refusal:  # pylint: disable=broad-except
            if word not in str(refusal):
                yield f"{what}: the refusal does not say {word!r}: {refusal}"


def check_overlays(deploy, kubectl):
    """kubectl renders every kustomization, and the chart says the same by its values."""
    if by_kubectl(kubectl, deploy / "base") != by_hand(deploy / "base"):
        yield "kubectl makes something else of base than its files say"
    for name, values in OVERLAYS.items():
        rendered = by_kubectl(kubectl, deploy / name)
        yield from compared(name, rendered, chart(deploy, values))
    for name in ["uninstall", "admission"]:
        if not by_kubectl(kubectl, deploy / name):
            yield f"{name} is empty"


def check_schemas(deploy, _kubectl):
    """Every object is as the schemas of two versions of Kubernetes have it."""
    from kubernetes_validate import utils

    utils.schema_contents = lru_cache(maxsize=None)(utils.schema_contents)
    found = {}
    for what in ["base", "admission", "uninstall"]:
        found[what] = by_hand(deploy / what)
    for what, values in {**OVERLAYS, "everything": EVERYTHING}.items():
        found[f"the chart as {what}"] = chart(deploy, values)
    seen, checked = set(), 0
    for what, those in found.items():
        for at, one in those.items():
            same = json.dumps(one, sort_keys=True)
            if at[1] in WITHOUT_SCHEMA or same in seen:
                continue
            seen.add(same)
            for version in [SINCE.get(at[1], OLDEST), NEWEST]:
                checked += 1
                try:
                    utils.validate(one, version, strict=True)
                except Exception as wrong:  # pylint: disable=broad-except
                    path = ".".join(str(part) for part in getattr(wrong, "absolute_path", []))
                    message = getattr(wrong, "message", wrong)
                    yield f"{what}, {told(at)}, Kubernetes {version}: {path}: {str(message)[:300]}"
    if checked < 40:
        yield f"only {checked} objects were found to be checked"


def check_admission(deploy, _kubectl):
    """Every policy decides the cases in admission.yaml as they say."""
    from admission import decide

    policies = {
        at[3]: one for at, one in by_hand(deploy / "admission").items() if at[1].endswith("Policy")
    }
    cases = objects((Path(__file__).parent / "admission.yaml").read_text())
    verdicts = {(name, allowed): 0 for name in policies for allowed in (True, False)}
    for case in cases:
        name = case["policy"]
        allowed, why = decide(policies[name], case)
        verdicts[name, case["allowed"]] += 1
        if allowed != case["allowed"]:
            yield f"{name}, {case['case']}: {'allowed' if allowed else 'refused'} ({why})"
    for (name, allowed), count in verdicts.items():
        if not count:
            yield f"{name}: no case that is {'allowed' if allowed else 'refused'}"


def main():
    name, root, *rest = sys.argv[1:]
    deploy = Path(root).resolve() / "deploy"
    kubectl = rest[0] if rest else None
    try:
        for problem in globals()[f"check_{name}"](deploy, kubectl):
            print(problem)
    except ValueError as problem:
        print(problem)


if __name__ == "__main__":
    main()
