"""What an import found and made: of tokenizers and of priors alike."""
import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from tokenizer import storage

REPORT = "import.json"
"""Where a checkpoint keeps what it was made from."""


class Check(Protocol):
    """A dataclass of what the imported network does with something drawn."""
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def text(self) -> str:
        """In one line."""


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """What an import found and made.

    Attributes:
        format: which programs write such files.
        url: the file of the weights.
        sha256: of that file.
        part: where in the file they were; empty at its top.
        network: the tokenizer or prior in one line.
        parameters: numbers of parameters by part of the network.
        num_tensors: tensors of the network, all of which were found.
        dropped: tensors of the file that the network has none of, such as those for training alone,
            counted by the room they were in.
        ignored: functions and classes that the file names; none was called.
        converted: how many tensors were not of float32, and became it.
        notes: what people should know.
        check: what the network does with a test pattern or a drawn sequence.
    """
    format: str
    url: str
    sha256: str
    part: str
    network: str
    parameters: dict[str, int]
    num_tensors: int
    dropped: dict[str, int]
    ignored: tuple[str, ...]
    converted: int
    notes: tuple[str, ...]
    check: Check

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole network."""
        return sum(self.parameters.values())

    def text(self) -> str:
        """The report for people, one fact a line."""
        parts = ", ".join(f"{name} {count:,}" for name, count in self.parameters.items())
        dropped = ", ".join(f"{name} ({count})" for name, count in self.dropped.items())
        rows = [("format", self.format),
                ("file", self.url + (f", its {self.part!r}" if self.part else "")),
                ("network", self.network),
                ("parameters", f"{self.num_parameters:,}: {parts}"),
                ("tensors", f"{self.num_tensors} found, 0 missing, 0 surplus"),
                ("left out", dropped), ("not called", ", ".join(self.ignored)),
                ("converted", f"{self.converted} tensors to float32" if self.converted else ""),
                ("self-check", self.check.text())]
        rows += [("note", note) for note in self.notes]
        return "\n".join(f"{name:<11} {words}" for name, words in rows if words)

    def save(self, folder: str) -> None:
        """Write `REPORT` into the folder of a checkpoint.

        Raises:
            OSError: its store refuses.
        """
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        storage.write_bytes(storage.join(folder, REPORT), text.encode())
