"""The arguments of `m3col submit`, as stored in the metadata of a job. `m3col jobs resume` reads them again."""

import json
from dataclasses import asdict, dataclass, fields

from m3col.errors import InputError


@dataclass(frozen=True)
class Submission:
    """Arguments of one submission. Paths are on the cluster; `config` may be None if `resume` names a study."""

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
        """Reads `to_json` output. Raises InputError if it is damaged or has options that this version does not know."""
        try:
            request = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError):
            raise InputError(["its request cannot be read"]) from None
        unknown = [str(key) for key in request if key not in {field.name for field in fields(cls)}]
        if unknown:
            raise InputError([f"its request has options that this version does not know: {', '.join(sorted(unknown))}"])
        words = request.pop("words", [])
        texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
        kinds = {key: bool if key == "shared" else str | None for key in request}
        wrong = [key for key, kind in kinds.items() if not isinstance(request[key], kind)]
        if wrong or not texts or "config" not in request:
            raise InputError(
                [f"its request is damaged: {', '.join([*wrong, *([] if texts else ['words'])]) or 'config'}"]
            )
        return cls(**request, words=tuple(words))
