"""Following a job: what it prints, to its end, over connections that break."""

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from ray_mae.cluster.proxies import proxy_of

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_PATIENCE = 10
"""Connections in a row that may fail; a proxy cuts quiet ones every few minutes."""


class Follower:
    """Prints a job's lines, each once."""

    def __init__(self, client: "JobSubmissionClient", job: str) -> None:
        self._client, self._job = client, job
        self._printed = 0  # characters

    def to_the_end(self) -> Any:
        """Prints until the job has ended.

        Returns:
            Ray's `JobDetails`.

        Raises:
            ConnectionError: The cluster stays out of reach.
        """
        import aiohttp
        import requests

        failures = 0
        while True:
            before = self._printed
            try:
                asyncio.run(self._tail())
                details = self._client.get_job_info(self._job)
                if details.status.is_terminal():
                    return details
                failures = 0
            except (RuntimeError, OSError, aiohttp.ClientError, requests.RequestException) as error:
                failures = failures + 1 if self._printed == before else 1
                if failures == _PATIENCE:
                    hint = (
                        "; Ray's client follows logs without the proxy of the environment"
                        if proxy_of(self._client.get_address())
                        else ""
                    )
                    raise ConnectionError(
                        f"the connection was lost ({error or type(error).__name__}); job {self._job} "
                        f"goes on as long as its cluster does{hint}"
                    ) from error
            time.sleep(1)

    async def _tail(self) -> None:
        seen = self._printed  # the log comes from its beginning each time
        async for text in self._client.tail_job_logs(self._job):
            fresh = text[seen:]
            seen = max(0, seen - len(text))
            self._printed += len(fresh)
            sys.stdout.write(fresh)
            sys.stdout.flush()
