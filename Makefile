# The commands a contributor needs; .ci/run runs the same ones in a new environment.
.PHONY: check format test slow docs clean

check:
	ruff format --check .
	ruff check .
	mypy

format:
	ruff format .
	ruff check --fix .

test:
	pytest

slow:
	pytest -m slow

docs:
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

clean:
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
