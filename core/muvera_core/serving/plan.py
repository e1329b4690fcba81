"""What a worker process does, as it is told by the process that starts it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from muvera_core.encoders import TokenEncoder, named_encoder
from muvera_core.errors import NotAnIndexError
from muvera_core.index import MuveraIndex
from muvera_core.serving.settings import ServiceSettings
from muvera_core.storage import read_encoder
from muvera_core.threads import max_threads


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker does.

    Attributes:
        path: the index's folder.
        settings: limits of the service.
        name: name of the worker, without "_". Empty if it is the only one.
        read_only: open the index for reading.
        create: make the index if there is none.
        encoder: name of a packaged encoder, or a model's folder. None takes the one that the index takes by itself.
        encoder_device: the device that the encoder computes on. None takes the encoder's own default.
        device: the device to search on.
        writer: path of the socket where the process that writes listens.
        listens_at: path of the socket to listen on instead of those that are inherited: of the process that writes.
        metrics_folder: folder of the numbers that all workers share.
        stop_timeout: seconds that running requests get to end when the worker stops.
        access_log: whether to log every request.
    """

    path: str
    settings: ServiceSettings
    name: str = ""
    read_only: bool = False
    create: bool = False
    encoder: str | None = None
    encoder_device: str | None = None
    device: str = "cpu"
    writer: str | None = None
    listens_at: str | None = None
    metrics_folder: str | None = None
    stop_timeout: float = 30.0
    access_log: bool = False

    def as_json(self, sockets: Sequence[int]) -> str:
        """The plan and the numbers of the sockets that the worker inherits, in one line."""
        return json.dumps({"plan": asdict(self), "sockets": list(sockets)})

    @classmethod
    def from_json(cls, line: str) -> tuple[WorkerPlan, list[int]]:
        """What ``as_json`` wrote."""
        content = json.loads(line)
        plan = cls(**content["plan"])
        return replace(plan, settings=ServiceSettings(**content["plan"]["settings"])), content["sockets"]

    @property
    def shared_folder(self) -> Path | None:
        """The temporary folder that the processes of a service share."""
        inside = self.listens_at or self.metrics_folder
        return None if inside is None else Path(inside).parent

    def open_index(self) -> MuveraIndex:
        """Open the index. Raises the errors of ``MuveraIndex.open``."""
        encoder = self._encoder()
        if self.read_only:
            # Looking for new commits at every read is what makes each write visible in all workers at once.
            return MuveraIndex.open(self.path, encoder, read_only=True, refresh_interval=0, device=self.device)
        if self.create:
            return MuveraIndex.open_or_create(self.path, encoder, device=self.device)
        return MuveraIndex.open(self.path, encoder, device=self.device)

    def _encoder(self) -> TokenEncoder | None:
        if self.encoder is None and self.encoder_device is None:
            return None
        try:
            fingerprint = read_encoder(Path(self.path).absolute())
        except NotAnIndexError:
            fingerprint = None
        return named_encoder(self.encoder, fingerprint, self.encoder_device)


def variables_of_worker(n_workers: int) -> dict[str, str]:
    """Environment variables that divide the threads of compiled code among workers, unless the user did it."""
    each = str(max(1, max_threads() // n_workers))
    names = ("MUVERA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {name: os.environ.get(name) or each for name in names}
