"""Scores in the lake, keyed by (model, text hash): what was scored once is not scored again.

A partition is one block of texts. Its refused texts are written first and its scores second, each file
whole or not at all; the scores' file says that the block is done.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from marketray.hashing import digest, table_hash
from marketray.lake import Lake, Manifest, Partition

__all__ = ["REFUSED", "REFUSED_SCHEMA", "SCORES", "SCORE_SCHEMA", "ScoreCache", "block_name"]

SCORES = "silver/sentiment_scores"
REFUSED = "quarantine/sentiment"

SCORE_SCHEMA = pa.schema(
    [
        pa.field("text_hash", pa.string()),
        pa.field("positive", pa.float32()),
        pa.field("negative", pa.float32()),
        pa.field("neutral", pa.float32()),
        pa.field("tokens", pa.int32()),
    ]
)
"""Probabilities of the three classes, and tokens read, special ones included."""

REFUSED_SCHEMA = pa.schema([pa.field("text_hash", pa.string()), pa.field("reason", pa.string())])
"""Texts that cannot be scored."""


def block_name(hashes: list[str]) -> str:
    """Name of a block of texts: a digest over their hashes."""
    return digest(hashes)


class ScoreCache:
    """The scores of one model in a lake.

    Parameters
    ----------
    scoring_id:
        `Checkpoint.scoring_id`: revision, number of tokens read and number format.
    """

    def __init__(self, lake: Lake, scoring_id: str) -> None:
        self._lake, self.scoring_id = lake, scoring_id

    def scores(self) -> pl.DataFrame:
        """All scores, as `SCORE_SCHEMA`."""
        return self._all(SCORES, SCORE_SCHEMA)

    def refused(self) -> pl.DataFrame:
        """All refused texts, as `REFUSED_SCHEMA`; those of a block that was not finished are left out."""
        return self._all(REFUSED, REFUSED_SCHEMA)

    def missing(self, texts: pl.DataFrame) -> pl.DataFrame:
        """Rows of `texts` whose `text_hash` is neither scored nor refused yet."""
        known = pl.concat([self.scores().select("text_hash"), self.refused().select("text_hash")])
        return texts.join(known, on="text_hash", how="anti", maintain_order="left")

    def store(self, block: str, scores: pa.Table, refused: pa.Table, detail: dict[str, str]) -> None:
        """Write a block's outcome; writing it again gives the same files."""
        partition = self._partition(block)
        n = scores.num_rows + refused.num_rows
        if refused.num_rows:
            self._lake.write(
                REFUSED, partition, refused, Manifest(block, table_hash(refused), *[refused.num_rows] * 2)
            )
        manifest = Manifest(
            block, table_hash(scores), n, scores.num_rows, rows_quarantined=refused.num_rows, detail=detail
        )
        self._lake.write(SCORES, partition, scores, manifest)

    def _partition(self, block: str) -> Partition:
        return {"model": self.scoring_id, "block": block}

    def _all(self, dataset: str, schema: pa.Schema) -> pl.DataFrame:
        done = {p["block"] for p in self._lake.partitions(SCORES, model=self.scoring_id)}
        tables = [
            self._lake.read(dataset, p).replace_schema_metadata(None)
            for p in self._lake.partitions(dataset, model=self.scoring_id)
            if p["block"] in done
        ]
        frame = pl.from_arrow(pa.concat_tables([schema.empty_table(), *tables]))
        assert isinstance(frame, pl.DataFrame)
        return frame
