"""Scoring many pictures: sources of pictures, the pipeline that scores them, sinks for the scores, a cache."""

from .pipeline import Record, score

__all__ = ["Record", "score"]
