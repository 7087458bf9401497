"""The promises that every metric keeps, as tests that anyone can run on a metric of their own.

    pytest --pyargs lowlight_iqa.testing --metric NAME [--metric-from FILE]

``--metric-from`` is a script that registers the metric; that of an installed package is found by its entry point.
"""
