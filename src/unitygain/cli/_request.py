"""What the input of a language model is to be, as asked for on the command line."""

from dataclasses import dataclass

from unitygain.cli._faults import Fault, plain


@dataclass(frozen=True)
class Request:
    """What the input is to be.

    Args:
        text: File to read, or None to draw ids.
        batch_size: Sequences in a batch.
        sequence_length: Tokens in a sequence, or None for 128 capped by the model.
        seed: Seed of drawn ids, masks and weights.
    """

    text: str | None = None
    batch_size: int = 2
    sequence_length: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.text is not None:
            read_text(self.text, 16)


def read_text(path: str, characters: int) -> str:
    """Return the beginning of the text file at `path`.

    Raises:
        Fault: If it cannot be read or is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(characters)
    except UnicodeDecodeError as error:
        raise Fault(f"--text {plain(path)} is not UTF-8 text (byte {error.start})", name="E-TEXT") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise Fault(f"cannot read --text {plain(path)}: {reason}", name="E-TEXT") from None
