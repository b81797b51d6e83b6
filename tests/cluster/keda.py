"""The real KEDA: the one that serves the cluster, or its two programs as processes of this machine.

RECUPERA_KEDA names a folder with `operator` and `adapter` (KEDA's sources: `go build ./cmd/operator`, `./cmd/adapter`)
and `crds`, the definitions of that version (`config/crd/bases`). The operator makes an HPA of each ScaledObject and
reads lag; the adapter is what the cluster's API `external.metrics.k8s.io` asks, which is what the HPA reads. Both have
KUBECONFIG's rights: KEDA's own roles are not tried. Its admission webhook does not run.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from cluster import installation

from recupera_local import helm, ports, processes
from support import certificates

API = "v1beta1.external.metrics.k8s.io"
SERVICE = "keda-metrics-apiserver"


class KedaMissing(Exception):
    """The cluster has no KEDA, and there are no programs to run."""


@contextlib.contextmanager
def running(installed: installation.Installation, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """KEDA acts on the installation's namespace while the block runs. Raises KedaMissing.

    Who makes a ScaledObject removes it within the block: the operator keeps a finalizer on it.
    """
    if serving(installed):
        yield
        return
    if not environ.get("RECUPERA_KEDA"):
        raise KedaMissing("no KEDA serves the cluster, and RECUPERA_KEDA names no folder with its programs")
    programs = Path(environ["RECUPERA_KEDA"]).absolute()
    folder, space = installed.folder / "keda", f"{installed.namespace}-keda"
    secure, asked, probed, metrics = ports.free_ports(4)
    authority = _certificates(folder / "certificates", f"{SERVICE}.{space}.svc")
    installed.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(programs / "crds"))
    objects = list(_objects(installed.settings.host, secure, space, authority))
    told = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": os.environ["KUBECONFIG"],
        "WATCH_NAMESPACE": installed.namespace,
        "POD_NAMESPACE": space,
        "KEDA_CLUSTER_OBJECT_NAMESPACE": space,
    }
    config = os.environ["KUBECONFIG"]
    children = [
        processes.Process(
            name="KEDA's operator",
            command=[
                *(str(programs / "operator"), "--enable-prometheus-metrics=false"),
                f"--cert-dir={folder / 'certificates'}",
                f"--metrics-service-bind-address=127.0.0.1:{asked}",
                f"--health-probe-bind-address=127.0.0.1:{probed}",
            ],
            log=folder / "operator.log",
            environ=told,
            ready=lambda: _answers(f"http://127.0.0.1:{probed}/readyz") and processes.listening(asked),
        ),
        processes.Process(
            name="KEDA's adapter",
            command=[
                *(str(programs / "adapter"), f"--port={metrics}"),
                *(f"--bind-address={installed.settings.host}", f"--secure-port={secure}"),
                *(f"--metrics-service-address=127.0.0.1:{asked}", f"--cert-dir={folder / 'certificates'}"),
                f"--tls-cert-file={folder / 'certificates' / 'tls.crt'}",
                f"--tls-private-key-file={folder / 'certificates' / 'tls.key'}",
                f"--lister-kubeconfig={config}",
                f"--authentication-kubeconfig={config}",
                f"--authorization-kubeconfig={config}",
            ],
            log=folder / "adapter.log",
            environ=told,
            ready=lambda: processes.listening(secure, installed.settings.host),
        ),
    ]
    try:
        # Not installed.apply: objects of another namespace.
        kubectl = str(helm.binary("kubectl"))
        installation.run(kubectl, "apply", "-f", "-", given=yaml.safe_dump_all(objects))
        for child in children:
            child.start()
            child.wait_ready()
        installation.until(f"{API} served", lambda: serving(installed), seconds=90)
        yield
    finally:
        try:
            installed.kubectl("delete", "scaledobjects.keda.sh", "--all", "--wait", "--timeout=60s")
        finally:
            for child in reversed(children):
                child.stop()
            # The API first: a namespace is not taken away while an API does not answer.
            for one in reversed(objects):
                if one["kind"] in CLUSTER_WIDE:
                    installed.kubectl("delete", one["kind"], one["metadata"]["name"], "--ignore-not-found")


def serving(installed: installation.Installation) -> bool:
    """Whether the cluster's HPAs can read what KEDA knows."""
    available = "jsonpath={.status.conditions[?(@.type=='Available')].status}"
    return installed.kubectl("get", "apiservice", API, "--ignore-not-found", "-o", available) == "True"


def _certificates(folder: Path, host: str) -> Path:
    """What both programs show, to each other and to the API server, in the files they look for; the authority's."""
    authority = certificates.Authority(folder)
    signed = authority.sign("keda", host, "127.0.0.1")
    for made, name in ((authority.file, "ca.crt"), (signed.certificate, "tls.crt"), (signed.key, "tls.key")):
        shutil.copy(made, folder / name)
    return authority.file


CLUSTER_WIDE = ("Namespace", "APIService", "ClusterRole", "ClusterRoleBinding")


def _objects(host: str, port: int, space: str, authority: Path) -> Iterator[dict[str, Any]]:
    """As `config/metrics-server` of KEDA's sources has them; the adapter is at a port of this machine."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}
    place = {"name": SERVICE, "namespace": space}
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": place,
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]},
    }
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**place, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": port}],
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
    }
    yield {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": API},
        "spec": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": place,
            "caBundle": base64.b64encode(authority.read_bytes()).decode(),
        },
    }
    group = "rbac.authorization.k8s.io"
    yield {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": space},
        "rules": [{"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}],
    }
    yield {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": space},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": space},
        "subjects": [
            {"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}
        ],
    }


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
