"""Profiles of the machines of aws.yaml, by Ray's own start-up against a mock of EC2 and IAM."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

LAUNCHER = Path(__file__).parents[2] / "cluster/launcher"

pytestmark = pytest.mark.slow


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An AWS of this process, with the roles of aws-iam.yaml; Ray's keys go to a home of their own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)  # of the S3 server of other tests
    monkeypatch.setattr(aws_config.time, "sleep", lambda _: None)  # for what it has just made
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        yield


def started(text: str) -> dict[str, str | None]:
    """The profile of a machine of each type, as `ray up` and then the head start them."""
    machines = boto3.client("ec2")
    image = machines.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    config = prepare_config(yaml.safe_load(text.replace("ami-00000000000000000", image)))
    validate_config(config)
    ready: Any = aws_config.bootstrap_aws(config)
    provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
    profiles: dict[str, str | None] = {}
    for name, node in ready["available_node_types"].items():
        machine = node["node_config"] | (ready["head_node"] if name == "head" else {})
        (made,) = provider.create_node(machine, {"ray-user-node-type": name}, 1).values()
        (there,) = machines.describe_instances(InstanceIds=[made.id])["Reservations"]
        profile = there["Instances"][0].get("IamInstanceProfile", {}).get("Arn")
        profiles[name] = profile and profile.rpartition("/")[2]
    return profiles


def test_workers_get_the_buckets_profile_and_the_head_one_that_may_start_them(cloud: None) -> None:
    stack = boto3.client("cloudformation")
    stack.create_stack(
        StackName="ray-mae",
        TemplateBody=(LAUNCHER / "aws-iam.yaml").read_text(),
        Parameters=[{"ParameterKey": "Bucket", "ParameterValue": "archive"}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    assert stack.describe_stacks()["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    text = (LAUNCHER / "aws.yaml").read_text()
    chosen = re.sub(r"# (?=IamInstanceProfile:)", "", text)
    assert chosen.count("IamInstanceProfile:") == 4
    node = "ray-mae-node"
    assert started(chosen) == {"head": "ray-mae-head", "cpu": node, "gpu_spot": node, "gpu": node}

    roles = boto3.resource("iam")
    document: Any = roles.RolePolicy("ray-mae-head", "workers").policy_document
    allowed = yaml.safe_load(document)["Statement"]  # as the mock keeps it
    (passed,) = [each for each in allowed if "iam:PassRole" in each["Action"]]
    assert passed["Resource"] == roles.Role(node).arn  # without it no worker with a profile starts
    actions = {action for each in allowed for action in each["Action"]}
    assert {"ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"} <= actions
    assert [*roles.Role(node).policies.all()] == []  # a worker starts no machines


def test_without_a_bucket_the_head_has_rays_own_profile(cloud: None) -> None:
    profiles = started((LAUNCHER / "aws.yaml").read_text())
    assert profiles == {"head": "ray-autoscaler-v1", "cpu": None, "gpu_spot": None, "gpu": None}
    role = boto3.resource("iam").Role("ray-autoscaler-v1")
    assert "AmazonEC2FullAccess" in {policy.policy_name for policy in role.attached_policies.all()}


def test_cloudformation_would_take_the_file_and_not_one_with_a_mistake(tmp_path: Path) -> None:
    linter = Path(sys.executable).parent / "cfn-lint"
    text = (LAUNCHER / "aws-iam.yaml").read_text()
    for content, right in ((text, True), (text.replace("RoleName", "Role", 1), False)):
        (tmp_path / "stack.yaml").write_text(content)
        done = subprocess.run([linter, tmp_path / "stack.yaml"], capture_output=True, text=True)
        assert (done.returncode == 0) == right, done.stdout
