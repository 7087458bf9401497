"""Stateless mathematics: color, resizing, natural scene statistics, the logistic; imports no other subpackage."""
