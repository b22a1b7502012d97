"""cluster/launcher without a cloud: Ray's schema, what each cloud takes for a machine, names that meet."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import googleapiclient.discovery_cache
import jsonschema
import pytest
import ray.autoscaler
import ray.autoscaler._private._azure as azure
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.sdk import get_docker_host_mount_location
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from ray_mae.health.accelerators import GKE_LIBRARIES

LAUNCHER = Path(__file__).parents[2] / "cluster/launcher"
JOBS = sorted((LAUNCHER.parents[1] / "jobs").glob("*.yaml"))
CLOUDS = ("aws", "gcp", "azure")
SIZE = {
    "aws": lambda node: node["InstanceType"],
    "gcp": lambda node: node["machineType"],
    "azure": lambda node: node["azure_arm_parameters"]["vmSize"],
}
SPOT = {
    "aws": lambda node: node.get("InstanceMarketOptions") == {"MarketType": "spot"},
    "gcp": lambda node: node.get("scheduling", {}).get("provisioningModel") == "SPOT",
    "azure": lambda node: node["azure_arm_parameters"].get("priority") == "Spot",
}


def read(cloud: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((LAUNCHER / f"{cloud}.yaml").read_text())
    return config


def check(cloud: str, config: dict[str, Any]) -> None:
    """Raise ValueError or ValidationError as `ray up` or the cloud would, or for a name of nothing."""
    types = config["available_node_types"]
    if config["head_node_type"] not in types:
        raise ValueError(f"there is no node type {config['head_node_type']}")
    if sum(node.get("max_workers", 0) for node in types.values()) < config["max_workers"]:
        raise ValueError("max_workers is more than the node types can be")
    validate_config(prepare_config(copy.deepcopy(config)))
    for node in types.values():
        CHECK_NODE[cloud](node["node_config"])


def check_aws(node: dict[str, Any]) -> None:
    """Against the model of RunInstances; Ray adds the counts."""
    service = botocore.model.ServiceModel(
        botocore.loaders.Loader().load_service_model("ec2", "service-2"), "ec2"
    )
    shape = service.operation_model("RunInstances").input_shape
    report = botocore.validate.ParamValidator().validate(
        node | {"MinCount": 1, "MaxCount": 1}, shape
    )
    if report.has_errors():
        raise ValueError(report.generate_report())


def check_gcp(node: dict[str, Any]) -> None:
    """Against the schema of an Instance in the Compute API."""
    folder = Path(googleapiclient.discovery_cache.__file__).parent / "documents"
    schemas = json.loads((folder / "compute.v1.json").read_text())["schemas"]

    def descend(value: Any, schema: dict[str, Any]) -> None:
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema
        if schema.get("type") == "array":
            for each in value:
                descend(each, schema["items"])
        elif "properties" in schema:
            for name, inner in value.items():
                if name not in schema["properties"]:
                    raise ValueError(f"{name} is none of {', '.join(schema['properties'])}")
                descend(inner, schema["properties"][name])
        elif value not in schema.get("enum", [value]):
            raise ValueError(f"{value} is none of {schema['enum']}")

    descend(node, schemas["Instance"])


def check_azure(node: dict[str, Any]) -> None:
    """Against the parameters of the template that Ray's provider fills in."""
    template = json.loads((Path(azure.__file__).parent / "azure-vm-template.json").read_text())
    unknown = set(node["azure_arm_parameters"]) - set(template["parameters"])
    if unknown or set(node) != {"azure_arm_parameters"}:
        raise ValueError(f"the template has no {', '.join(unknown or node)}")


def system_of(cloud: str, node: dict[str, Any]) -> object:
    """The image of the operating system, whose driver must know the CUDA of the container's image."""
    if cloud == "gcp":
        return [disk["initializeParams"]["sourceImage"] for disk in node["disks"]]
    return node.get("ImageId") or node["azure_arm_parameters"]["imageSku"]


CHECK_NODE = {"aws": check_aws, "gcp": check_gcp, "azure": check_azure}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_and_the_cloud_would_take_the_file(cloud: str) -> None:
    check(cloud, read(cloud))


def _head(config: dict[str, Any]) -> None:
    config["head_node_type"] = "haed"


def _top(config: dict[str, Any]) -> None:
    config["idle_timeout"] = config.pop("idle_timeout_minutes")


def _type(config: dict[str, Any]) -> None:
    config["available_node_types"]["cpu"]["max_worker"] = 8


def _more(config: dict[str, Any]) -> None:
    config["max_workers"] = 17


def _text(config: dict[str, Any]) -> None:
    config["available_node_types"]["gpu"]["resources"]["GPU"] = "4"


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("mistake", [_head, _top, _type, _more, _text])
def test_a_mistake_in_the_file_is_caught(
    cloud: str, mistake: Callable[[dict[str, Any]], None]
) -> None:
    config = read(cloud)
    mistake(config)
    with pytest.raises((ValueError, jsonschema.ValidationError)):
        check(cloud, config)


@pytest.mark.parametrize(
    ("cloud", "path", "value"),
    [
        ("aws", ("InstanceMarketOption",), {"MarketType": "spot"}),
        ("aws", ("BlockDeviceMappings", 0, "Ebs", "Size"), 200),
        ("gcp", ("scheduling", "preemptable"), True),
        ("gcp", ("scheduling", "provisioningModel"), "spot"),
        ("azure", ("azure_arm_parameters", "size"), "Standard_D4s_v5"),
    ],
)
def test_a_mistake_in_a_machine_is_caught(cloud: str, path: tuple, value: object) -> None:
    config = read(cloud)
    at: Any = config["available_node_types"]["gpu_spot"]["node_config"]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(ValueError, match=str(path[-1]) if value != "spot" else "spot"):
        check(cloud, config)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_pools_are_those_of_kubernetes(cloud: str) -> None:
    config = read(cloud)
    types = config["available_node_types"]
    assert set(types) == {"head", "cpu", "gpu_spot", "gpu"}
    for node in types.values():
        assert SIZE[cloud](node["node_config"])
        assert system_of(cloud, node["node_config"])  # Ray's own default is years old
    spot = {name for name, node in types.items() if SPOT[cloud](node["node_config"])}
    assert spot == {"cpu", "gpu_spot"}  # the head is not, as the cluster ends with it
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu_spot"]["resources"] == types["gpu"]["resources"]
    assert types["gpu_spot"]["priority"] > types["gpu"]["priority"]
    assert not any(node.get("min_workers") for node in types.values())
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in c for c in commands if "ray start" in c)
    assert config["max_workers"] == sum(node["max_workers"] for node in types.values())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nodes_run_what_the_image_has_and_install_nothing(cloud: str) -> None:
    ready = prepare_config(read(cloud))  # Ray's defaults where the file says nothing
    for kind in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert ready[kind] == []
    defaults = (Path(ray.autoscaler.__file__).parent / cloud / "defaults.yaml").read_text()
    line = next(c for c in yaml.safe_load(defaults)["head_setup_commands"] if "pip install" in c)
    packages = re.findall(r"[a-z][\w-]+(?=[=>])", line)  # by Ray's provider of nodes, on the head
    assert packages
    image = (LAUNCHER.parent / "Dockerfile").read_text()
    assert not [name for name in packages if name not in image]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_containers_user_can_read_the_token(cloud: str) -> None:
    config = read(cloud)
    (inside,) = config["file_mounts"]
    on_the_node = f"{get_docker_host_mount_location(config['cluster_name'])}{inside}"
    assert f"chmod 644 {on_the_node}" in config["initialization_commands"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_shared_disk_is_mounted_by_the_node_and_seen_by_the_container(cloud: str) -> None:
    text = (LAUNCHER / f"{cloud}.yaml").read_text()
    config = yaml.safe_load(re.sub(r"(?m)^  # (?=- >-|  mountpoint|  -o)", "  ", text))
    check(cloud, config)
    disk = config["initialization_commands"][-1]
    assert re.search(r"mount -t nfs4 -o \S+ \S+:/\S* /data && sudo chown 1000 /data\)$", disk)
    image = (LAUNCHER.parent / "Dockerfile").read_text()
    assert "USER 1000" in image
    assert {"-v /data:/data", "-v /tmp/ray:/tmp/ray"} <= {*config["docker"]["run_options"]}
    assert "mkdir -p -m 1777 /tmp/ray" in config["initialization_commands"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_job_leaves_half_of_a_gpu_nodes_cpus_for_reading(cloud: str) -> None:
    node = read(cloud)["available_node_types"]["gpu"]["resources"]
    jobs = [yaml.safe_load(job.read_text()) for job in JOBS]
    scalings = [job.get("run", job).get("scaling", {}) for job in jobs]
    with_gpus = [each for each in scalings if each.get("gpu") is True]
    assert len(with_gpus) > 10
    # said by each: by default a worker has one CPU, and PyTorch one thread
    assert all(each["cpus_per_worker"] > 1 for each in with_gpus)
    assert all(node["GPU"] * each["cpus_per_worker"] <= node["CPU"] / 2 for each in with_gpus)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_every_job_says_how_large_it_is(job: Path) -> None:
    pattern = r"(?m)^# (Size|.*cores and (a quarter of|half) an hour)"
    assert re.search(pattern, job.read_text())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_containers_of_gpu_nodes_and_no_others_are_given_the_gpus(cloud: str) -> None:
    ready = AutoscalingConfig(prepare_config(read(cloud)), skip_content_hash=True)
    for name, node in read(cloud)["available_node_types"].items():
        docker = ready.get_docker_config(name)  # as Ray starts a container of the type
        options = [*docker["run_options"], *docker.get("worker_run_options", [])]
        assert ("--gpus all" in options) == ("GPU" in node["resources"]), name
        assert "-v /data:/data" in options


def test_the_image_lets_the_drivers_libraries_in_and_chooses_no_gpus() -> None:
    image = (LAUNCHER.parent / "Dockerfile").read_text()
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in image
    assert f"LD_LIBRARY_PATH={GKE_LIBRARIES}" in image
    # a pod on a GPU node that asked for none would see all of them
    assert "NVIDIA_VISIBLE_DEVICES" not in image


LOGINS = {
    "aws": "docker login --username AWS --password-stdin",
    "gcp": "gcloud auth configure-docker",
    "azure": "az acr login",
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_lines_for_identity_and_registry_are_right_where_they_are_taken(cloud: str) -> None:
    text = (LAUNCHER / f"{cloud}.yaml").read_text()
    chosen = re.sub(
        r"(?m)^( +)# (?=- aws |- gcloud |- az |serviceAccounts:|IamInstanceProfile:)", r"\1", text
    )
    config = yaml.safe_load(chosen)
    check(cloud, config)
    logins = [c for c in config["initialization_commands"] if LOGINS[cloud] in c]
    assert len(logins) == 1  # before the image is pulled
    workers = {
        n: t["node_config"] for n, t in config["available_node_types"].items() if n != "head"
    }
    if cloud == "gcp":  # as for the head, which Ray gives an account: workers read the bucket, too
        assert all(node["serviceAccounts"][0]["scopes"] for node in workers.values())
    if cloud == "aws":
        assert {n["IamInstanceProfile"]["Name"] for n in workers.values()} == {"ray-mae-node"}
