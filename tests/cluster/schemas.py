"""Strict schemas of the custom resources that cluster/kubernetes uses: fields, types, nothing else.

No package carries the definitions of KubeRay, Kueue and the Prometheus operator, so these are our reading of
their references (KubeRay 1.7, Kueue v1beta2), with the fields that a user may want. They catch what is
misspelt, not what we misread: that does `kubectl apply --dry-run=server`. Pods in them are held against
Kubernetes' own.
"""

from typing import Any

TEXT, NUMBER, SWITCH = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
ELSEWHERE: dict[str, Any] = {"type": "object"}
"""Held against Kubernetes' own schema."""


def one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def some(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


def strict(*required: str, **fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }


def resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = strict(name=TEXT, generateName=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
    metadata["anyOf"] = [{"required": ["name"]}, {"required": ["generateName"]}]
    return strict(
        "apiVersion", "kind", "metadata", "spec",
        apiVersion=one_of(version), kind=one_of(kind), metadata=metadata, spec=spec,
    )  # fmt: skip


HEAD_GROUP = strict(
    "template",
    template=ELSEWHERE, rayStartParams=TEXTS, resources=TEXTS, labels=TEXTS, enableIngress=SWITCH,
    serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
)  # fmt: skip
WORKER_GROUP = strict(
    "groupName", "minReplicas", "maxReplicas", "template",
    groupName=TEXT, replicas=NUMBER, minReplicas=NUMBER, maxReplicas=NUMBER, numOfHosts=NUMBER,
    idleTimeoutSeconds=NUMBER, priority=NUMBER, rayStartParams=TEXTS, resources=TEXTS, labels=TEXTS,
    template=ELSEWHERE, suspend=SWITCH,
)  # fmt: skip
RAY_CLUSTER_SPEC = strict(
    "headGroupSpec",
    rayVersion=TEXT, suspend=SWITCH, enableInTreeAutoscaling=SWITCH, headGroupSpec=HEAD_GROUP,
    workerGroupSpecs=some(WORKER_GROUP), headServiceAnnotations=TEXTS,
    gcsFaultToleranceOptions=strict(
        "redisAddress",
        redisAddress=TEXT, redisUsername=ELSEWHERE, redisPassword=strict(value=TEXT, valueFrom=ELSEWHERE),
        externalStorageNamespace=TEXT,
    ),
    authOptions=strict(
        mode=one_of("disabled", "token"), secretName=TEXT, enableK8sTokenAuth=SWITCH
    ),
    autoscalerOptions=strict(
        version=one_of("v1", "v2"), idleTimeoutSeconds=NUMBER, image=TEXT, resources=ELSEWHERE,
        env=some(ELSEWHERE), envFrom=some(ELSEWHERE),
        imagePullPolicy=one_of("Always", "IfNotPresent", "Never"), volumeMounts=some(ELSEWHERE),
        upscalingMode=one_of("Default", "Aggressive", "Conservative"), securityContext=ELSEWHERE,
    ),
)  # fmt: skip
RAY_JOB_SPEC = strict(
    "entrypoint",
    entrypoint=TEXT, runtimeEnvYAML=TEXT, metadata=TEXTS, suspend=SWITCH, clusterSelector=TEXTS,
    rayClusterSpec=RAY_CLUSTER_SPEC, shutdownAfterJobFinishes=SWITCH, ttlSecondsAfterFinished=NUMBER,
    backoffLimit=NUMBER, activeDeadlineSeconds=NUMBER, preRunningDeadlineSeconds=NUMBER,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    submitterPodTemplate=ELSEWHERE, entrypointNumCpus={"type": "number"},
)  # fmt: skip
RAY_JOB_SPEC["oneOf"] = [{"required": ["clusterSelector"]}, {"required": ["rayClusterSpec"]}]
# the operator refuses to suspend or to make anew what the job does not own
RAY_JOB_SPEC["dependentSchemas"] = {
    "clusterSelector": {
        "not": {"anyOf": [{"required": ["suspend"]}, {"required": ["backoffLimit"]}]}
    }
}

QUOTA = strict("name", "nominalQuota", name=TEXT, nominalQuota=TEXT)
FLAVOUR = strict("name", "resources", name=TEXT, resources=some(QUOTA))
SCHEMAS = {
    "RayCluster": resource("ray.io/v1", "RayCluster", RAY_CLUSTER_SPEC),
    "RayJob": resource("ray.io/v1", "RayJob", RAY_JOB_SPEC),
    "ResourceFlavor": resource(
        "kueue.x-k8s.io/v1beta2", "ResourceFlavor", strict(nodeLabels=TEXTS)
    ),
    "ClusterQueue": resource(
        "kueue.x-k8s.io/v1beta2",
        "ClusterQueue",
        strict(
            "resourceGroups",
            namespaceSelector=ELSEWHERE,
            queueingStrategy=one_of("StrictFIFO", "BestEffortFIFO"),
            resourceGroups=some(
                strict(
                    "coveredResources",
                    "flavors",
                    coveredResources=some(TEXT),
                    flavors=some(FLAVOUR),
                )
            ),
        ),
    ),
    "PodMonitor": resource(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        strict(
            "selector",
            "podMetricsEndpoints",
            selector=strict("matchLabels", matchLabels=TEXTS),
            podMetricsEndpoints=some(
                strict(
                    "port",
                    port=TEXT,
                    interval=TEXT,
                    metricRelabelings=some(strict("action", action=TEXT, regex=TEXT)),
                )
            ),
        ),
    ),
    "LocalQueue": resource(
        "kueue.x-k8s.io/v1beta2", "LocalQueue", strict("clusterQueue", clusterQueue=TEXT)
    ),
}
