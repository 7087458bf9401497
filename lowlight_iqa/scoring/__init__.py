"""Scoring many pictures: where they come from, the pipeline that scores them, where the scores go."""

from .pipeline import Record, score

__all__ = ["Record", "score"]
