"""What stopped trials left behind."""

from ray_mae.terminal import console


def give_back() -> None:
    """Remove the placement groups of this job, when none of its trials goes on any more.

    Ray Train takes back what a stopped trial held by an actor of the trial, which on a busy machine can
    die before it was told of the group.
    """
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group
    from ray.util.state import list_placement_groups
    from ray.util.state.exception import RayStateApiException

    context = ray.get_runtime_context()
    job, address = (
        context.get_job_id(),
        context.gcs_address,
    )  # of several clusters on a machine, ours
    ours = [("creator_job_id", "=", job), ("state", "!=", "REMOVED")]
    try:
        groups = list_placement_groups(address, filters=ours, detail=True, limit=10_000)
    except (
        RayStateApiException,
        ConnectionError,
    ) as error:  # nothing that a search of days should end with
        console.print(f"what stopped trials may still hold could not be looked at: {error}")
        return
    for group in groups:
        identity = ray.PlacementGroupID(bytes.fromhex(group.placement_group_id))
        remove_placement_group(PlacementGroup(identity))
