"""What `m3col submit` is asked for; kept in the job's metadata, so that it can be asked for again."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Submission:
    """What is asked for. Paths are paths on the cluster; `config` may be None where `resume` names a study."""

    config: str | None
    words: tuple[str, ...] = ()
    name: str | None = None
    resume: str | None = None
    runs: str | None = None
    tracking_uri: str | None = None
    data_dir: str | None = None
    shared: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Submission":
        found = json.loads(text)
        return cls(**{**found, "words": tuple(found["words"])})
