"""Stateless mathematics: color, resizing, natural scene statistics, the logistic; imports nothing else of ours."""
