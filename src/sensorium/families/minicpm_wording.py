"""What stands in a MiniCPM-V prompt for pictures: control tokens, a row of slots for every slice, numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.family import Layout
from sensorium.families.minicpm_slices import Slices

# The authors write the whole of IMAGE_SPELLING for a picture and replace it before they tokenize. Here the token it
# begins with stands for the picture alone: so the text around it is split into the very tokens it has behind slots.
IMAGE = "<image>"
IMAGE_SPELLING = "(<image>./</image>)"
VIDEO_SPELLING = "(<video>./</video>)"
_SLOT = "<unk>"


@dataclass(frozen=True)
class Wording:
    """How the tokens of a picture are written.

    Attributes:
        encode: text -> token ids.
        slot_id: the token in whose places encoder rows go.
        num_queries: rows the encoder gives for the overview and for each slice.
        one_slice_tag: <slice> stands around all slices, each an <image> again (2.5), not around each (2.6 and later).
    """

    encode: Callable[[str], list[int]]
    slot_id: int
    num_queries: int
    one_slice_tag: bool

    @classmethod
    def read(cls, checkpoint: Checkpoint, *, one_slice_tag: bool) -> Wording:
        """Find the tokens in the checkpoint's tokenizer.

        Raises:
            ConfigurationError: it lacks one of them, or config.json and preprocessor_config.json disagree.
        """
        for text in (IMAGE, "</image>", "<slice>", "</slice>"):
            checkpoint.token_id(text)
        queries = int(checkpoint.config.get("query_num", 64))
        expected = int(checkpoint.image_settings.get("image_feature_size", 64))
        if queries != expected:
            raise ConfigurationError(
                f"config.json has query_num {queries}, preprocessor_config.json image_feature_size {expected}; "
                "they must be equal. The files do not belong together."
            )
        return cls(checkpoint.encode, checkpoint.token_id(_SLOT), queries, one_slice_tag)

    def layout(self, pictures: Sequence[Slices | None]) -> Layout:
        """Return the tokens of pictures with these grids of slices, one right behind the other."""
        text = "".join(self._overview() + self._slices(slices) for slices in pictures)
        return Layout.of(self.encode(text), self.slot_id)

    def _overview(self) -> str:
        return IMAGE + _SLOT * self.num_queries + "</image>"

    def _slices(self, slices: Slices | None) -> str:
        if slices is None:
            return ""
        columns, rows = slices
        if self.one_slice_tag:
            return "<slice>" + "\n".join([self._overview() * columns] * rows) + "</slice>"
        each = "<slice>" + _SLOT * self.num_queries + "</slice>"
        return "\n".join([each * columns] * rows)


def numbering(checkpoint: Checkpoint) -> Callable[[Layout, int], Layout]:
    """Return what puts a picture's number, counted over the whole prompt, before its tokens.

    It does nothing where preprocessor_config.json has no `use_image_id`.
    """
    if not checkpoint.image_settings.get("use_image_id", False):
        return lambda layout, number: layout
    return lambda layout, number: layout.behind(checkpoint.encode(f"<image_id>{number}</image_id>"))
