"""Tells Ray that a spot machine will be taken away, as its cloud announces: the run saves before it goes.

    python -m ray_mae.cluster.notices aws|gcp|azure    # beside Ray, on each machine

Ray knows nothing of its machines' clouds. What drains a node tells the run on it (`ray_mae.train.recovery.
preemption`), and no further task is started there.
"""

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

_EVERY_S = 3.0
METADATA = {
    "aws": "http://169.254.169.254",
    "gcp": "http://metadata.google.internal",
    "azure": "http://169.254.169.254",
}
"""Where each cloud tells a machine about itself."""
_LEAST_S = 30
"""Seconds that Google Cloud and Azure leave a machine at least."""
_OPEN = build_opener(ProxyHandler({}))  # a proxy would be told of its own machine


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str:
    with _OPEN.open(Request(url, headers=headers, method=method), timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def _seconds_until(when: datetime) -> int:
    return max(0, round((when - datetime.now(UTC)).total_seconds()))


def aws(base: str) -> int | None:
    """Returns seconds until a spot machine of AWS is taken away; None without a notice. base: URL."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _ask(f"{base}/latest/api/token", lifetime, "PUT")
    try:
        notice = _ask(
            f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}
        )
    except HTTPError as error:
        if error.code == 404:
            return None
        raise
    return _seconds_until(datetime.fromisoformat(json.loads(notice)["time"]))


def gcp(base: str) -> int | None:
    """The same of Google Cloud."""
    headers = {"Metadata-Flavor": "Google"}
    notice = _ask(f"{base}/computeMetadata/v1/instance/preempted", headers)
    return _LEAST_S if notice.strip() == "TRUE" else None


def azure(base: str) -> int | None:
    """The same of Azure, which tells a machine of its neighbours, too."""
    headers = {"Metadata": "true"}
    events = json.loads(_ask(f"{base}/metadata/scheduledevents?api-version=2020-07-01", headers))[
        "Events"
    ]
    preempted = [event for event in events if event["EventType"] == "Preempt"]
    if not preempted:
        return None
    where = f"{base}/metadata/instance/compute/name?api-version=2021-02-01&format=text"
    name = _ask(where, headers).strip()
    for event in preempted:
        if name in event["Resources"]:
            when = event.get("NotBefore")
            return _seconds_until(parsedate_to_datetime(when)) if when else _LEAST_S
    return None


CLOUDS = {"aws": aws, "gcp": gcp, "azure": azure}


def watch(cloud: str, base: str, every_s: float = _EVERY_S) -> int:
    """Waits for a notice, and has Ray drain this node.

    Args:
        cloud: a name of CLOUDS.
        base: URL of its metadata.
        every_s: seconds between two questions.

    Returns:
        The exit code of `ray drain-node`.
    """
    silent = False
    while True:
        try:
            seconds = CLOUDS[cloud](base)
            silent = False
        except (OSError, ValueError, KeyError) as error:  # it may answer the next time
            if not silent:
                print(f"ray-mae: {base} does not tell of notices ({error})", flush=True)
            seconds, silent = None, True
        if seconds is not None:
            print(f"ray-mae: {cloud} takes this machine away in {seconds} s", flush=True)
            return subprocess.run(drain_command(cloud, seconds)).returncode
        time.sleep(every_s)


def drain_command(cloud: str, seconds: int) -> list[str]:
    """Returns the command by which Ray learns that its node here goes in so many seconds."""
    return [
        *("ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
        *("--reason-message", f"notice of {cloud}"),
        *("--deadline-remaining-seconds", str(max(1, seconds))),
    ]


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cloud", choices=CLOUDS)
    parser.add_argument("--metadata", help="URL of the machine's metadata")
    words = parser.parse_args()
    return watch(words.cloud, words.metadata or METADATA[words.cloud])


if __name__ == "__main__":
    sys.exit(main())
