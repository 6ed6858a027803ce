"""What `m3col submit` is asked for; kept in the job's metadata, so that it can be asked for again."""

import json
from dataclasses import asdict, dataclass, fields

from m3col.errors import InputError


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
        """Raises InputError for what another version of m3col wrote with options that this one does not know, and for
        what is none of ours."""
        try:
            found = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError):
            raise InputError(["its request cannot be read"]) from None
        unknown = [str(key) for key in found if key not in {field.name for field in fields(cls)}]
        if unknown:
            raise InputError([f"its request has options that this version does not know: {', '.join(sorted(unknown))}"])
        words = found.pop("words", [])
        texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
        wanted = {key: bool if key == "shared" else str | None for key in found}
        wrong = [key for key, kind in wanted.items() if not isinstance(found[key], kind)]
        if wrong or not texts or "config" not in found:
            raise InputError(
                [f"its request is damaged: {', '.join([*wrong, *([] if texts else ['words'])]) or 'config'}"]
            )
        return cls(**found, words=tuple(words))
